import { existsSync } from "node:fs";
import { resolve } from "node:path";
import { execa } from "execa";
import { z } from "zod";
import { DitrunError } from "../failure.js";
import type { Log } from "../launcher/logs.js";
import { probeEntry } from "../paths.js";
import { findKernels } from "./kernel-module.js";
import { gpuIsVisible } from "./visible-gpu.js";

export const deviceNames = ["auto", "cpu", "cuda"] as const;
export type DeviceName = (typeof deviceNames)[number];

/** The kernel module that workers load, and what it runs on. */
export interface DeviceChoice {
  device: "cpu" | "cuda";
  kernels: string;
  /** GPUs of this host that the module can use; 1 on the CPU. */
  count: number;
  /** Of the first GPU, as its driver calls it. */
  name?: string;
  /** A sentence on why it is the CPU, where nobody has chosen it. */
  noGpu?: string;
}

/** What a choice depends on besides the options. */
export interface Surroundings {
  readonly findKernels: typeof findKernels;
  readonly gpuIsVisible: () => boolean;
}

const PROBE_MILLISECONDS = 60_000;
const probeSchema = z.object({
  devices: z.int().min(0),
  info: z.object({ module: z.enum(["cpu", "cuda"]).optional(), name: z.string().optional() }).nullish(),
});
type Probe = z.infer<typeof probeSchema>;

/**
 * Chooses a kernel module: the file in DITRUN_KERNELS, else the install's own for the device. `auto` is CUDA where there is
 * that module and it finds a GPU. A GPU that is visible and not used is told of, with the reason.
 * @throws DitrunError when there is no such module or GPU.
 */
export async function chooseDevice(
  wanted: DeviceName,
  log: Log,
  surroundings: Surroundings = { findKernels, gpuIsVisible },
): Promise<DeviceChoice> {
  const { DITRUN_KERNELS: override } = process.env;
  // A bare name would be looked up in the system's library folders instead.
  if (override !== undefined && override !== "") return chooseOverride(wanted, resolve(override));
  const gpu: Gpu = wanted === "cpu" ? { unused: "", tell: false } : await findGpu(wanted, surroundings);
  if ("count" in gpu) return { device: "cuda", ...gpu };
  if (wanted === "auto" && gpu.tell) log.logger.warn(`This runs on the CPU. ${gpu.unused}`);
  const cpu = surroundings.findKernels("cpu");
  if ("missing" in cpu) {
    throw new DitrunError("ERR_KERNEL_MODULE", `There is no kernel module for the CPU. ${cpu.missing}`);
  }
  return { device: "cpu", kernels: cpu.file, count: 1, ...(wanted === "auto" ? { noGpu: gpu.unused } : {}) };
}

/** GPUs that can be used, or why there are none and whether that is a surprise. */
type Gpu = { kernels: string; count: number; name?: string } | { unused: string; tell: boolean };

/** @throws DitrunError where `wanted` is cuda and there is no module or no GPU. */
async function findGpu(wanted: "auto" | "cuda", { findKernels, gpuIsVisible }: Surroundings): Promise<Gpu> {
  const found = findKernels("cuda");
  const visible = gpuIsVisible();
  if ("missing" in found) {
    if (wanted === "cuda") {
      throw new DitrunError(
        "ERR_KERNEL_MODULE",
        `--device cuda needs the CUDA kernel module. ${found.missing} Or use --device cpu.`,
      );
    }
    if (!visible) return { unused: "No GPU is visible.", tell: false };
    return { unused: `A GPU is visible, but not used. ${found.missing}`, tell: true };
  }
  // A release brings the CUDA module to hosts without a GPU too, where it is not worth a word; who built it wants to use it.
  if (wanted === "auto" && !found.built && !visible) return { unused: "No GPU is visible.", tell: false };
  const answer = await probe(found.file);
  if ("devices" in answer && answer.devices > 0) {
    return { kernels: found.file, count: answer.devices, ...nameIn(answer) };
  }
  const reason = "reason" in answer ? answer.reason : noDevice();
  if (wanted === "cuda") throw new DitrunError("ERR_NO_DEVICE", `--device cuda cannot be used: ${reason}`);
  return { unused: `The CUDA module cannot be used: ${reason}`, tell: true };
}

function noDevice(): string {
  const { CUDA_VISIBLE_DEVICES: visible } = process.env;
  return visible === undefined ? "no GPU is visible." : `no GPU is visible, with CUDA_VISIBLE_DEVICES=${visible}.`;
}

async function chooseOverride(wanted: DeviceName, kernels: string): Promise<DeviceChoice> {
  if (!existsSync(kernels))
    throw new DitrunError("ERR_KERNEL_MODULE", `DITRUN_KERNELS names ${kernels}, which does not exist.`);
  const found = await probe(kernels);
  if ("reason" in found) throw new DitrunError("ERR_KERNEL_MODULE", found.reason);
  const device = found.info?.module;
  if (device === undefined || found.devices === 0) {
    throw new DitrunError("ERR_NO_DEVICE", `The kernel module ${kernels} finds no device.`);
  }
  if (wanted !== "auto" && wanted !== device) {
    throw new DitrunError(
      "ERR_OPTION_CONFLICT",
      `--device is ${wanted}, but DITRUN_KERNELS names a ${device} module: ${kernels}.`,
    );
  }
  return { device, kernels, count: device === "cuda" ? found.devices : 1, ...nameIn(found) };
}

const nameIn = ({ info }: Probe) => (info?.name === undefined ? {} : { name: info.name });

/** Asks a short-lived process what a module finds: a broken module or driver must not take the launcher with it. */
async function probe(kernels: string): Promise<Probe | { reason: string }> {
  const result = await execa(process.execPath, [probeEntry, kernels], {
    reject: false,
    stdin: "ignore",
    timeout: PROBE_MILLISECONDS,
    killSignal: "SIGKILL",
  });
  if (result.timedOut)
    return { reason: `The probe of ${kernels} did not answer within ${PROBE_MILLISECONDS / 1000} s.` };
  if (result.failed) {
    const said = result.stderr.trim();
    const ended =
      result.signal === undefined ? `exited with code ${result.exitCode}` : `was killed by ${result.signal}`;
    return { reason: said === "" ? `The probe of ${kernels} ${ended}.` : said };
  }
  try {
    return probeSchema.parse(JSON.parse(result.stdout));
  } catch {
    return { reason: `The probe of ${kernels} answered ${JSON.stringify(result.stdout.slice(0, 200))}.` };
  }
}
