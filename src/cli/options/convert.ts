import { convertTargets } from "../../protocol/job.js";
import { choice, flag, type Option, path, type Values } from "../option.js";
import { generateOptions } from "./generate.js";
import { workerOptions } from "./launch.js";
import { modelOptions } from "./model.js";
import { outputOptions } from "./output.js";

const { lora, download, verify } = generateOptions;

/** Of `ditrun convert`. */
export const convertOptions = {
  to: choice(
    convertTargets,
    { describe: "What the linear layers are in; the rest stays as fine as ditrun computes with it" },
    { fp8: "fp8 is e4m3", float8: "fp8 is e4m3", bfloat16: "bfloat16 is bf16" },
  ),
  lora: { ...lora, describe: "LoRA file, merged into the weights with this strength (1); given again, one more" },
  model: modelOptions.model,
  "ckpt-dir": path("FOLDER", "folder", { describe: "Folder with the checkpoint, whose transformer is converted" }),
  transformer: path("FILE", "file", { describe: "The transformer's file, of any kind that docs/files.md lists" }),
  "text-encoder": path("FILE", "file", { describe: "umT5's file: convert the text encoder instead" }),
  download,
  verify,
  overwrite: flag("Replace OUT if it is there"),
  device: workerOptions.device,
  ...outputOptions,
} satisfies Record<string, Option<unknown>>;

export type ConvertOptions = Values<typeof convertOptions>;
