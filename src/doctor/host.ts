import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import type { Allocation } from "../launcher/cluster/allocation.js";
import { type Gpu, gpusOfHost } from "../launcher/gpus.js";
import type { Environment } from "./environment.js";
import { type ExaminedModule, moduleExaminer } from "./examine.js";
import { askSmi, type SmiGpu } from "./smi.js";

/** What checks look at. What takes long is asked once, by whichever check comes first. */
export interface Host {
  /** `/`, or a folder that stands for it. */
  readonly root: string;
  readonly environment: Environment;
  /** The job's hosts, as far as the environment tells. @throws DitrunError where it contradicts itself. */
  allocation(): Allocation;
  /** The GPUs that the driver shows to this process. */
  gpus(): readonly Gpu[];
  /** The kernel module for a device, tried. */
  module(device: "cpu" | "cuda"): Promise<ExaminedModule>;
  /** What nvidia-smi says of each GPU; undefined where there is none that answers. */
  smi(): Promise<readonly SmiGpu[] | undefined>;
}

export interface HostOptions {
  readonly root?: string;
  readonly environment: Environment;
  readonly allocation: () => Allocation;
  /** Whether rates are measured too. */
  readonly bench: boolean;
}

export function thisHost({ root = "/", environment, allocation, bench }: HostOptions): Host {
  const once = <T>(ask: () => T) => {
    let answer: { readonly value: T } | undefined;
    return () => {
      answer ??= { value: ask() };
      return answer.value;
    };
  };
  return {
    ...{ root, environment, allocation },
    gpus: once(() => gpusOfHost(root)),
    module: moduleExaminer({ environment, root, bench }),
    smi: once(() => askSmi(environment)),
  };
}

/** The text of a file of the host, without space at its ends; undefined where it cannot be read. */
export function textOf({ root }: Pick<Host, "root">, path: string): string | undefined {
  try {
    return readFileSync(join(root, path), "utf8").trim();
  } catch {
    return undefined;
  }
}

/** What is in a folder of the host, in order. */
export function namesIn({ root }: Pick<Host, "root">, path: string): string[] {
  try {
    return readdirSync(join(root, path)).sort();
  } catch {
    return [];
  }
}

/** The job's hosts; undefined where the environment contradicts itself, of which the check of hosts tells. */
export function allocationOf(host: Pick<Host, "allocation">): Allocation | undefined {
  try {
    return host.allocation();
  } catch {
    return undefined;
  }
}
