import { existsSync } from "node:fs";
import { relative, resolve } from "node:path";
import { execa } from "execa";
import { z } from "zod";
import { DitrunError } from "../failure.js";
import type { Log } from "../launcher/logs.js";
import { builtKernels, packageRoot, probeEntry } from "../paths.js";
import { gpuIsVisible, whyNoCudaModule } from "./visible-gpu.js";

export const deviceNames = ["auto", "cpu", "cuda"] as const;
export type DeviceName = (typeof deviceNames)[number];

/** The kernel module that workers load, and what it runs on. */
export interface DeviceChoice {
  device: "cpu" | "cuda";
  kernels: string;
  /** GPUs of this host that the module can use; 1 on the CPU. */
  count: number;
  /** A sentence on why it is the CPU, where nobody has chosen it. */
  noGpu?: string;
}

/** What a choice depends on besides the options. */
export interface Surroundings {
  readonly kernels: (device: "cpu" | "cuda") => string;
  readonly gpuIsVisible: () => boolean;
  readonly whyNoCudaModule: () => string;
}

const PROBE_MILLISECONDS = 60_000;
const probeSchema = z.object({
  devices: z.int().min(0),
  info: z.object({ module: z.enum(["cpu", "cuda"]).optional(), name: z.string().optional() }).nullish(),
});
type Probe = z.infer<typeof probeSchema>;

/**
 * Chooses a kernel module: the file in DITRUN_KERNELS, else the package's own for the device. `auto` is CUDA where that
 * module is built and finds a GPU.
 * @param look false for a dry run: `--device cuda` and `cpu` are then taken at their word.
 * @throws DitrunError when there is no such module or GPU.
 */
export async function chooseDevice(
  wanted: DeviceName,
  log: Log,
  look = true,
  surroundings: Surroundings = { kernels: builtKernels, gpuIsVisible, whyNoCudaModule },
): Promise<DeviceChoice> {
  const { DITRUN_KERNELS: override } = process.env;
  // A bare name would be looked up in the system's library folders instead.
  if (override !== undefined && override !== "") return chooseOverride(wanted, resolve(override), look);
  const cuda = surroundings.kernels("cuda");
  const cpu = surroundings.kernels("cpu");
  if (!look && wanted !== "auto") return { device: wanted, kernels: surroundings.kernels(wanted), count: 1 };
  if (wanted === "cuda" && !existsSync(cuda)) {
    throw new DitrunError(
      "ERR_KERNEL_MODULE",
      `--device cuda needs the CUDA kernel module, but ${shown(cuda)} does not exist. ${surroundings.whyNoCudaModule()} Or use --device cpu.`,
    );
  }
  let noGpu = "No GPU is visible.";
  if (wanted !== "cpu" && existsSync(cuda)) {
    const found = await probe(cuda);
    if ("devices" in found && found.devices > 0) return { device: "cuda", kernels: cuda, count: found.devices };
    const reason = "reason" in found ? found.reason : "no GPU is visible.";
    if (wanted === "cuda") throw new DitrunError("ERR_NO_DEVICE", `--device cuda cannot be used: ${reason}`);
    noGpu = `The CUDA module cannot be used: ${reason}`;
    log.logger.warn(`This runs on the CPU. ${noGpu}`);
  } else if (wanted === "auto" && surroundings.gpuIsVisible()) {
    noGpu = `A GPU is visible, but not used. ${surroundings.whyNoCudaModule()}`;
    log.logger.warn(`This runs on the CPU. ${noGpu}`);
  }
  if (look && !existsSync(cpu)) {
    throw new DitrunError(
      "ERR_KERNEL_MODULE",
      `There is no kernel module for the CPU: ${shown(cpu)} does not exist; run npm run build in ${packageRoot}.`,
    );
  }
  return { device: "cpu", kernels: cpu, count: 1, ...(wanted === "auto" ? { noGpu } : {}) };
}

async function chooseOverride(wanted: DeviceName, kernels: string, look: boolean): Promise<DeviceChoice> {
  if (!existsSync(kernels))
    throw new DitrunError("ERR_KERNEL_MODULE", `DITRUN_KERNELS names ${kernels}, which does not exist.`);
  if (!look && wanted !== "auto") return { device: wanted, kernels, count: 1 };
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
  return { device, kernels, count: device === "cuda" ? found.devices : 1 };
}

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

function shown(file: string): string {
  const short = relative(process.cwd(), file);
  return short.startsWith("..") ? file : short;
}
