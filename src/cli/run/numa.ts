import { accessSync, constants } from "node:fs";
import { delimiter, join } from "node:path";
import { type CoreBinding, coresOf } from "../../launcher/cores.js";
import { type Gpu, gpuNamed } from "../../launcher/gpus.js";
import type { Logger } from "../../launcher/logger.js";

type CommandLine = readonly [program: string, ...rest: string[]];

/**
 * How to keep each rank on cores beside its GPU, with taskset of util-linux. A rank without such cores runs anywhere.
 * @param visible names the GPUs of the ranks, in order.
 * @returns undefined where that cannot be done, which the logger is told.
 */
export function bindingOf(
  binding: CoreBinding,
  { gpus, visible }: { readonly gpus: readonly Gpu[]; readonly visible: readonly string[] },
  { PATH = "" }: Readonly<Record<string, string | undefined>>,
  logger: Logger,
  root = "/",
): ((localRank: number, command: CommandLine) => CommandLine) | undefined {
  const taskset = PATH.split(delimiter)
    .map((folder) => join(folder, "taskset"))
    .find(isProgram);
  const ranks = visible.map((word) => gpuNamed(gpus, word));
  const { cores, untold } = coresOf(binding, ranks, root);
  const missing = cores.every((each) => each === undefined) ? "this host tells no cores beside a GPU" : undefined;
  const reason = missing ?? (taskset === undefined ? "there is no taskset (util-linux)" : undefined);
  if (taskset === undefined || reason !== undefined) {
    logger.warn(`--numa-binding has no effect: ${reason}.`);
    return undefined;
  }
  if (untold !== undefined) logger.warn(`--numa-binding ${binding} is node here: ${untold}.`);
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
