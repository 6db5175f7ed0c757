import { createHash } from "node:crypto";
import { readFile } from "node:fs/promises";
import { basename } from "node:path";

/** What a result depends on, beside the command line. */
export interface Environment {
  /** Node.js's version. */
  readonly node: string;
  /** The kernel module's file, without its folder, and the beginning of its SHA-256. */
  readonly kernels: string;
  readonly kernelsHash: string | null;
  /** Version of NVIDIA's kernel driver; null where there is none. */
  readonly driver: string | null;
}

/** @param kernels the kernel module's file. */
export async function environmentOf(kernels: string): Promise<Environment> {
  const module = await readFile(kernels).catch(() => undefined);
  const driver = await readFile("/proc/driver/nvidia/version", "utf8").catch(() => "");
  return {
    node: process.version,
    kernels: basename(kernels),
    kernelsHash: module === undefined ? null : createHash("sha256").update(module).digest("hex").slice(0, 12),
    driver: /Kernel Module\D*([\d.]+)/.exec(driver)?.[1] ?? null,
  };
}
