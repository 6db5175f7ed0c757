import { availableParallelism, networkInterfaces } from "node:os";
import { rendezvousVariables } from "../../protocol/variables.js";
import { interfaceTo, ncclVariables } from "./nccl-interface.js";

/** The place of a rank, and where rank 0 is met. */
export interface Place {
  readonly rank: number;
  /** Ranks of the launch. */
  readonly size: number;
  /** Among those of its host. */
  readonly localRank: number;
  readonly localSize: number;
  readonly address: string;
  readonly port: number;
}

/** Where a rank stands, in torchrun's variables, and as many threads as let all ranks of a host share its cores. */
export function rankVariables({ rank, size, localRank, localSize, address, port }: Place): Record<string, string> {
  const threads = Math.max(1, Math.floor(availableParallelism() / localSize));
  const { OMP_NUM_THREADS = String(threads) } = process.env;
  return {
    OMP_NUM_THREADS,
    RANK: String(rank),
    LOCAL_RANK: String(localRank),
    WORLD_SIZE: String(size),
    LOCAL_WORLD_SIZE: String(localSize),
    MASTER_ADDR: address,
    MASTER_PORT: String(port),
  };
}

/**
 * What ranks of one host are told of it where a launch has several: its address, and the interface that the other hosts are
 * behind, for NCCL and for Gloo, unless the user has chosen.
 * @param address of this host, as the others reach it.
 */
export function hostVariables(address: string | undefined): Record<string, string> {
  if (address === undefined) return {};
  const gloo = process.env.GLOO_SOCKET_IFNAME || interfaceTo(address, networkInterfaces());
  return {
    [rendezvousVariables.address]: address,
    ...ncclVariables(address),
    ...(gloo && { GLOO_SOCKET_IFNAME: gloo }),
  };
}

/** Threads that wait must not spin: on a CPU the next worker needs the core. */
export function passiveWaiting(): Record<string, string> {
  const { OMP_WAIT_POLICY = "passive" } = process.env;
  return { OMP_WAIT_POLICY };
}
