import { hostVariables, type Place, rankVariables } from "./cluster/rank-variables.js";
import type { Program } from "./worker-process.js";

/** The place of a rank of any program, as PyTorch's programs ask for it. */
export interface ProgramPlace extends Place {
  /** Names the launch. */
  readonly id: string;
  /** The rank's host, of so many. */
  readonly node: number;
  readonly nodes: number;
  /** That host's address, where there are others. */
  readonly host: string | undefined;
  /** How often all ranks have been started again, and may be. */
  readonly restarts: number;
  readonly maxRestarts: number;
  /** Where the program may leave its error (`torch.distributed.elastic.multiprocessing.errors.record`). */
  readonly errorFile?: string | undefined;
}

/** What a launch is besides its ranks. */
export type LaunchDetail = Pick<ProgramPlace, "id" | "nodes" | "restarts" | "maxRestarts">;

/**
 * A rank of any program, with what torchrun tells it (PyTorch, torch/distributed/run.py, "Environment Variables").
 * @param environment is added; the rank's place takes precedence. @param more takes precedence over that.
 */
export function rankProgram(
  command: Program["command"],
  { id, node, nodes, host, restarts, maxRestarts, errorFile, ...place }: ProgramPlace,
  environment: Readonly<Record<string, string>> = {},
  more: Readonly<Record<string, string>> = {},
): Program {
  const own = {
    ...environment,
    ...rankVariables(place),
    ...hostVariables(host),
    ROLE_RANK: String(place.rank),
    ROLE_WORLD_SIZE: String(place.size),
    ROLE_NAME: "default",
    GROUP_RANK: String(node),
    GROUP_WORLD_SIZE: String(nodes),
    TORCHELASTIC_RUN_ID: id,
    TORCHELASTIC_RESTART_COUNT: String(restarts),
    TORCHELASTIC_MAX_RESTARTS: String(maxRestarts),
    // Rank 0 opens the store of env:// itself; torchrun's own agent would have done so.
    TORCHELASTIC_USE_AGENT_STORE: "False",
    ...(errorFile === undefined ? {} : { TORCHELASTIC_ERROR_FILE: errorFile }),
    ...more,
  };
  return { command, environment: own, stdin: "empty" };
}
