import { counted } from "../../text.js";
import { type Check, defineCheck, type Finding } from "../check.js";
import type { ExaminedPair } from "../examine.js";
import { sentence } from "../words.js";

interface Facts {
  /** Why there is nothing to try. */
  readonly none: string | null;
  readonly workers: number;
  readonly pairs: readonly ExaminedPair[];
}

/** Whether workers read each other's memory: a process for each, which lends its own and reads that of all others. */
function peersCheck(device: "cpu" | "cuda") {
  const one = device === "cpu" ? "worker" : "GPU";
  return defineCheck({
    ...{
      name: device === "cpu" ? "cpu-peers" : "gpu-peers",
      section: "links",
      what: device === "cpu" ? "CPU workers" : "GPU pairs",
      deadline: 120,
    },
    async look(host): Promise<Facts> {
      const { ranks, pairs, devices } = await host.module(device);
      const none =
        ranks.length === 0
          ? device === "cpu"
            ? "not tried: the CPU module is not"
            : "no GPU"
          : ranks.length === 1
            ? "one GPU, so no link"
            : null;
      return { none, workers: device === "cpu" ? ranks.length : devices, pairs };
    },
    judge({ none, workers, pairs }): Finding {
      if (none !== null) return { state: "ok", value: none };
      const broken = pairs.filter(({ failure }) => failure !== undefined);
      const [first] = broken;
      if (!first) {
        return {
          state: "ok",
          value: `each of ${counted(workers, one)} reads the others' memory (${pairs.length} ways tried)`,
        };
      }
      const others = broken.length === 1 ? "" : ` (and ${broken.length - 1} more of ${pairs.length} ways)`;
      return {
        state: "problem",
        value: `${one} ${first.to} cannot read the memory of ${one} ${first.from}${others}: ${sentence(first.failure ?? "")}`,
        wayOut: ways[device],
      };
    },
  });
}

const ways = {
  cuda: "In a container, add --ipc=host. Else let plans go over NCCL (docs/plans.md), and see nvidia-smi topo -m.",
  cpu: "Workers need /proc, memfd_create and to be of one user; a container's seccomp profile may forbid them.",
} as const;

export const cudaPeers = peersCheck("cuda");
export const cpuPeers = peersCheck("cpu");
export const peers: readonly Check[] = [cudaPeers, cpuPeers];
