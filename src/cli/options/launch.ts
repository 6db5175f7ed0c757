import type { DeviceName } from "../../engine/choose-device.js";
import { mostWorkers } from "../../limits.js";
import { choiceOr, decimal, type Option, optional, refuse, type Values, whole, withDefault } from "../option.js";
import { hostsOptions } from "./hosts.js";

const devices: readonly DeviceName[] = ["auto", "cpu", "cuda"];
const otherDevices = { gpu: "a GPU is cuda", "cuda:0": "a GPU is cuda; CUDA_VISIBLE_DEVICES chooses which" };

/** How many processes a host has, on what, and how long they may wait. Nothing here knows a model. */
export const workerOptions = {
  nproc: optional(
    {
      value: "N",
      describe: "Workers on this host: a number, gpu (one per GPU) or auto (all GPUs, or what the plan needs)",
      usual: "auto",
    },
    (text, name): number | "gpu" | "auto" => {
      if (text === "auto" || text === "gpu") return text;
      if (/^\s*-?\d/.test(text)) return whole(1, mostWorkers)(text, name);
      return refuse(name, text, "a whole number of at least 1, gpu (one per GPU) or auto");
    },
  ),
  device: choiceOr("auto", devices, { describe: "What to run on" }, otherDevices),
  timeout: withDefault(
    { value: "SECONDS", describe: "That any wait for other workers may take", usual: "120" },
    120,
    decimal((value) => value > 0 && value <= 86_400, "a number of seconds above 0 and at most 86400"),
  ),
  "master-port": optional(
    {
      value: "PORT",
      describe: "Port of the rendezvous, on host 0",
      usual: "MASTER_PORT, else any free one; 29500 with --nnodes",
    },
    portNumber,
  ),
} satisfies Record<string, Option<unknown>>;

/** Of every command that starts processes. */
export const launchOptions = { ...workerOptions, ...hostsOptions };

export type LaunchOptions = Values<typeof launchOptions>;

/** @throws DitrunError when the text is not a port. */
export function portNumber(text: string, name: string): number {
  const port = Number(text);
  return /^\d+$/.test(text) && port <= 65_535 ? port : refuse(name, text, "a port from 0 to 65535");
}
