import { mostWorkers } from "../../limits.js";
import { usualOf } from "../../models/wan/presets.js";
import { asText, decimal, type Option, optional, path, type Values, whole, withDefault } from "../option.js";
import { generateOptions } from "./generate.js";
import { portNumber, workerOptions } from "./launch.js";
import { modelOptions } from "./model.js";
import { outputOptions } from "./output.js";
import { videoOptions } from "./video.js";

const size: Option<readonly string[] | undefined> = {
  value: "WIDTH*HEIGHT",
  repeats: true,
  describe: "Pixels of a video; given again, another size. Each is made ready before the first request",
  usual: usualOf("size"),
  otherwise: undefined,
  read: (texts) => texts,
};

/** Of `ditrun serve`. */
export const serveOptions = {
  host: withDefault(
    { value: "ADDRESS", describe: "Where to listen; others than this machine need a key", usual: "127.0.0.1" },
    "127.0.0.1",
    asText,
  ),
  port: withDefault(
    { value: "PORT", describe: "Port to listen on; 0 takes a free one", usual: "8000" },
    8000,
    portNumber,
  ),
  "api-key-file": path("FILE", "file", {
    describe: "A key in its first line, which clients must send; `ditrun key` makes one",
    usual: "DITRUN_API_KEY, else none",
  }),
  size,
  frames: { ...videoOptions.frames, describe: "Frames where a request does not say: 4n + 1" },
  "max-frames": optional(
    { value: "N", describe: "Frames that a request may ask for", usual: "as --frames" },
    whole(1, 57_601),
  ),
  steps: generateOptions.steps,
  shift: generateOptions.shift,
  "guide-scale": generateOptions["guide-scale"],
  queue: withDefault(
    { value: "N", describe: "Videos that may wait; more are refused", usual: "64" },
    64,
    whole(1, 100_000),
  ),
  keep: withDefault(
    { value: "HOURS", describe: "How long a video is kept once it has ended", usual: "24" },
    24,
    decimal((value) => value > 0 && value <= 8760, "a number of hours above 0 and at most 8760"),
  ),
  "data-dir": path("FOLDER", "folder", {
    describe: "Holds the queue and the videos; one server at a time",
    usual: "~/.local/state/ditrun/serve",
  }),
  "shutdown-timeout": withDefault(
    { value: "SECONDS", describe: "That a video may take to finish once a signal has come", usual: "30" },
    30,
    decimal((value) => value >= 0 && value <= 86_400, "a number of seconds from 0 to 86400"),
  ),
  model: modelOptions.model,
  plan: modelOptions.plan,
  "lora-dir": path("FOLDER", "folder", {
    describe: "Holds NAME.safetensors files: LoRAs that requests may name",
    usual: "none",
  }),
  lora: { ...generateOptions.lora, describe: "LoRA file of requests that name none, with a strength (1)" },
  "lora-2": generateOptions["lora-2"],
  preset: generateOptions.preset,
  "ckpt-dir": generateOptions["ckpt-dir"],
  download: generateOptions.download,
  weights: generateOptions.weights,
  memory: generateOptions.memory,
  nproc: optional({ value: "N", describe: "Workers", usual: "what the plan needs" }, whole(1, mostWorkers)),
  replicas: withDefault(
    { value: "N", describe: "Groups of --nproc workers; each makes a video of its own", usual: "1" },
    1,
    whole(1, mostWorkers),
  ),
  device: workerOptions.device,
  timeout: workerOptions.timeout,
  quiet: outputOptions.quiet,
  "log-level": outputOptions["log-level"],
  "log-dir": outputOptions["log-dir"],
} satisfies Record<string, Option<unknown>>;

export type ServeOptions = Values<typeof serveOptions>;
