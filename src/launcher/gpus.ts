import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";

/** A GPU of this host, as its driver names it. */
export interface Gpu {
  /** In /dev/nvidiaN. */
  readonly minor: number;
  readonly uuid: string;
  /** `0000:1b:00.0`, in lower case. */
  readonly address: string;
}

/** The GPUs that this process may open, in the order of their addresses. Empty where there is no driver. */
export function gpusOfHost(root = "/"): Gpu[] {
  const devices = new Set(namesIn(join(root, "dev")).filter((name) => /^nvidia\d+$/.test(name)));
  const folder = join(root, "proc/driver/nvidia/gpus");
  return namesIn(folder)
    .sort()
    .map((address) => {
      const text = textOf(join(folder, address, "information"));
      const minor = Number(/^Device Minor:\s*(\d+)/m.exec(text)?.[1] ?? Number.NaN);
      return { minor, uuid: /^GPU UUID:\s*(\S+)/m.exec(text)?.[1] ?? "", address: address.toLowerCase() };
    })
    .filter(({ minor }) => devices.has(`nvidia${minor}`));
}

/**
 * The words of CUDA_VISIBLE_DEVICES, or the numbers of all GPUs: one for each that a program sees. CUDA stops at the first word that
 * names none (CUDA C++ Programming Guide, "CUDA Environment Variables").
 */
export function visibleGpus(gpus: readonly Gpu[], visible: string | undefined): string[] {
  if (visible === undefined) return gpus.map((_, index) => String(index));
  const words = visible.split(",").map((word) => word.trim());
  const end = words.findIndex((word) => gpuNamed(gpus, word) === undefined && !/^MIG-/.test(word));
  return end < 0 ? words : words.slice(0, end);
}

/** The GPU that a word of CUDA_VISIBLE_DEVICES names, by its number or the beginning of its UUID. */
export function gpuNamed(gpus: readonly Gpu[], word: string): Gpu | undefined {
  if (/^\d+$/.test(word)) return gpus[Number(word)];
  return /^GPU-./.test(word) ? gpus.find(({ uuid }) => uuid.startsWith(word)) : undefined;
}

function namesIn(folder: string): string[] {
  try {
    return readdirSync(folder);
  } catch {
    return [];
  }
}

function textOf(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return "";
  }
}
