import { mostWorkers } from "../../limits.js";
import { asPath, flag, type Option, optional, path, refuse, type Values, whole, withDefault } from "../option.js";
import { workerOptions } from "./launch.js";
import { modelOptions } from "./model.js";
import { outputOptions } from "./output.js";
import { videoOptions } from "./video.js";

/** What plans may compute in, as the names of plans say it. */
export const planDtypes = ["bf16", "fp16", "fp8", "fp32"] as const;
export type PlanDtype = (typeof planDtypes)[number];

function readDtypes(text: string, name: string): readonly PlanDtype[] {
  const words = text.split(",").map((word) => word.trim().toLowerCase().replace("e4m3", "fp8"));
  const found = words.flatMap((word) => planDtypes.filter((each) => each === word));
  return found.length === words.length ? found : refuse(name, text, `some of ${planDtypes.join(", ")}`);
}

/** Of `ditrun plan`. */
export const planOptions = {
  model: modelOptions.model,
  nproc: optional(
    { value: "N", describe: "Workers of each host", usual: "the GPUs at hand, else 8" },
    whole(1, mostWorkers),
  ),
  gpu: optional(
    {
      value: "GPU",
      describe: "h200, h100, a100, l40s, cpu, or FILE.yaml with a device's rates",
      usual: "the GPUs at hand, else h200",
      completes: "file",
    },
    asPath,
  ),
  hosts: withDefault(
    { value: "N", describe: "Hosts, each with as many workers", usual: "1" },
    1,
    whole(1, mostWorkers),
  ),
  dtype: optional(
    {
      value: "DTYPE,DTYPE…",
      describe: "What to rank, of bf16, fp16 (the DiT's attention), fp8 and fp32",
      usual: "bf16, fp16 and fp8, where model and GPU have them",
    },
    readDtypes,
  ),
  ...videoOptions,
  steps: optional({ value: "N", describe: "Steps of a video", usual: "the model's" }, whole(1)),
  top: withDefault({ value: "N", describe: "Plans to show", usual: "10" }, 10, whole(1)),
  out: path("FILE", "file", { describe: "Write the first plan to FILE.yaml, for --plan" }),
  calibrate: flag("Measure this machine first: products, attention, copies, links; kept in the user's cache"),
  device: workerOptions.device,
  timeout: workerOptions.timeout,
  json: outputOptions.json,
  quiet: outputOptions.quiet,
  "log-level": outputOptions["log-level"],
  "log-dir": outputOptions["log-dir"],
} satisfies Record<string, Option<unknown>>;

export type PlanOptions = Values<typeof planOptions>;
