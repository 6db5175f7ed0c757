import { accessSync, constants } from "node:fs";
import { delimiter, join } from "node:path";
import { coresBeside, type Gpu, gpuNamed } from "../../launcher/gpus.js";
import type { Logger } from "../../launcher/logger.js";

type CommandLine = readonly [program: string, ...rest: string[]];

/**
 * How to keep each rank on the cores beside its GPU, with taskset of util-linux. A rank without such cores runs anywhere.
 * @returns undefined where that cannot be done, which the logger is told.
 */
export function bindingOf(
  gpus: readonly Gpu[],
  visible: readonly string[],
  { PATH = "" }: Readonly<Record<string, string | undefined>>,
  logger: Logger,
  root = "/",
): ((localRank: number, command: CommandLine) => CommandLine) | undefined {
  const taskset = PATH.split(delimiter)
    .map((folder) => join(folder, "taskset"))
    .find(isProgram);
  const cores = visible.map((word) => {
    const gpu = gpuNamed(gpus, word);
    return gpu === undefined ? undefined : coresBeside(gpu, root);
  });
  const missing = cores.every((each) => each === undefined) ? "this host tells no cores beside a GPU" : undefined;
  const reason = missing ?? (taskset === undefined ? "there is no taskset (util-linux)" : undefined);
  if (taskset === undefined || reason !== undefined) {
    logger.warn(`--numa-binding has no effect: ${reason}.`);
    return undefined;
  }
  cores.forEach((each, rank) => {
    if (each !== undefined) logger.debug(`Local rank ${rank} keeps to the cores ${each}.`);
  });
  return (localRank, command) => {
    const own = cores[localRank];
    return own === undefined ? command : [taskset, "--cpu-list", own, ...command];
  };
}

function isProgram(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}
