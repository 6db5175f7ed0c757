import { join } from "node:path";
import { gpuIsVisible } from "../../engine/visible-gpu.js";
import { bytesInWords, counted } from "../../text.js";
import { defineCheck, type Finding } from "../check.js";
import type { ExaminedRank } from "../examine.js";
import { grouped, ranges } from "../words.js";

interface Facts {
  readonly visible: boolean;
  /** GPUs that the driver shows, or 0 where it does not tell, as in WSL. */
  readonly shown: number;
  /** CUDA_VISIBLE_DEVICES; null where it is not set. */
  readonly chosen: string | null;
  /** Whether a CUDA module was asked. */
  readonly asked: boolean;
  /** GPUs that a worker sees. */
  readonly seen: number;
  readonly ranks: readonly Pick<ExaminedRank, "name" | "memoryBytes" | "freeBytes">[];
}

/** What a rank would see: GPUs by CUDA's count, names and memory. */
export const gpus = defineCheck({
  ...{ name: "visible-gpus", section: "gpus", what: "GPUs", deadline: 120 },
  async look(host): Promise<Facts> {
    const visible = gpuIsVisible(join(host.root, "dev"));
    const chosen = host.environment.CUDA_VISIBLE_DEVICES ?? null;
    const { ranks, devices, failure, untried, file } = visible
      ? await host.module("cuda")
      : { ranks: [], devices: 0, failure: undefined, untried: "no GPU", file: undefined };
    const asked = file !== undefined && failure === undefined && untried === undefined;
    return { visible, shown: host.gpus().length, chosen, asked, seen: devices, ranks };
  },
  judge(facts): Finding {
    const { visible, shown, chosen, asked, seen, ranks } = facts;
    if (!visible) {
      const idle = chosen ? `; CUDA_VISIBLE_DEVICES=${chosen} means nothing here` : "";
      return { state: "ok", value: `none${idle}` };
    }
    const there = shown === 0 ? "GPUs" : counted(shown, "GPU");
    if (!asked) return { state: "ok", value: `${there}, which no CUDA module was asked about` };
    // Nothing and -1 are how people hide all GPUs.
    if (seen === 0 && (chosen === "" || chosen === "-1"))
      return { state: "ok", value: `${there}, hidden by CUDA_VISIBLE_DEVICES=${chosen}` };
    const numbers = shown === 0 ? "numbers of GPUs" : `numbers from 0 to ${shown - 1}`;
    const wayOut = `Unset CUDA_VISIBLE_DEVICES, or give it ${numbers}, with commas.`;
    if (seen === 0) {
      if (chosen === null) return { state: "problem", value: `${there}, of which CUDA sees none`, wayOut: lost };
      return { state: "problem", value: `CUDA_VISIBLE_DEVICES=${chosen} names none of ${there}`, wayOut };
    }
    // CUDA stops at -1, which people write to say so.
    const words = (chosen ?? "").replace(/,-1\b.*$/, "").split(",");
    if (words.length > seen) {
      const value = `CUDA_VISIBLE_DEVICES=${chosen} names ${words.length}, of which CUDA sees ${seen}: it stops at the first that is not there`;
      return { state: "warning", value, wayOut };
    }
    return { state: "ok", value: `${describe(ranks)}; ${seen === 1 ? "all ranks take it" : "rank n takes GPU n"}` };
  },
});

const lost = "Look whether nvidia-smi shows them; in a container, start it with --gpus all.";

/** `8 × NVIDIA H200, 139.8 GiB`, or each kind with the ranks that have it. */
function describe(ranks: Facts["ranks"]): string {
  const kinds = grouped(ranks, ({ name, memoryBytes }) => `${name}, ${bytesInWords(memoryBytes)}`);
  if (kinds.size === 1) return [...kinds].map(([kind, which]) => `${which.length} × ${kind}`).join("");
  return [...kinds].map(([kind, which]) => `${ranges(which)}: ${kind}`).join("; ");
}
