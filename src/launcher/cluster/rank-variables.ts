import { availableParallelism } from "node:os";

/** The place of a rank on this host, and where rank 0 is met. */
export interface Place {
  readonly rank: number;
  /** Ranks of the launch, all on this host. */
  readonly size: number;
  readonly address: string;
  readonly port: number;
}

/** Where a rank stands, in torchrun's variables, and as many threads as let all ranks share the host's cores. */
export function rankVariables({ rank, size, address, port }: Place): Record<string, string> {
  const threads = Math.max(1, Math.floor(availableParallelism() / size));
  const { OMP_NUM_THREADS = String(threads) } = process.env;
  return {
    OMP_NUM_THREADS,
    RANK: String(rank),
    LOCAL_RANK: String(rank),
    WORLD_SIZE: String(size),
    LOCAL_WORLD_SIZE: String(size),
    MASTER_ADDR: address,
    MASTER_PORT: String(port),
  };
}

/** Threads that wait must not spin: on a CPU the next worker needs the core. */
export function passiveWaiting(): Record<string, string> {
  const { OMP_WAIT_POLICY = "passive" } = process.env;
  return { OMP_WAIT_POLICY };
}
