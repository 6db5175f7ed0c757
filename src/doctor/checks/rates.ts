import { gpuNamed, visibleGpus } from "../../launcher/gpus.js";
import { type Check, defineCheck, type Finding } from "../check.js";
import { knownDevice, LEAST_OF_USUAL, usualShare } from "../devices.js";
import type { ExaminedRank } from "../examine.js";
import type { Host } from "../host.js";
import type { SmiGpu } from "../smi.js";

interface Facts {
  readonly ranks: readonly Pick<ExaminedRank, "rank" | "name" | "rates" | "ratesFailure">[];
  /** Of each rank's GPU; null where nobody tells. */
  readonly smi: readonly (SmiGpu | null)[];
}

/** How fast each GPU multiplies and copies, beside what its kind does. */
export const gpuRates = defineCheck({
  ...{ name: "gpu-rates", section: "gpus", what: "Rates", bench: true, deadline: 120 },
  async look(host): Promise<Facts> {
    const { ranks } = await host.module("cuda");
    const smi = ranks.length === 0 ? [] : await host.smi();
    return {
      ranks: ranks.map(({ rank, name, rates, ratesFailure }) => ({
        ...{ rank, name },
        ...(rates && { rates }),
        ...(ratesFailure !== undefined && { ratesFailure }),
      })),
      smi: ofRanks(host, smi ?? []),
    };
  },
  judge({ ranks, smi }): Finding {
    const unmeasured = ranks.find(({ ratesFailure }) => ratesFailure !== undefined);
    if (unmeasured) {
      return {
        ...{ state: "warning", value: `GPU ${unmeasured.rank} cannot be measured: ${unmeasured.ratesFailure}` },
        wayOut: "End what else computes there, which nvidia-smi shows.",
      };
    }
    const lines = ranks.flatMap(({ rank, name, rates }) =>
      rates ? [{ rank, ...judgeRates(name, rates, smi[rank]) }] : [],
    );
    if (lines.length === 0) return { state: "ok", value: "no GPU to measure" };
    const more = lines.map(({ rank, value }) => `GPU ${rank}: ${value}`);
    const slow = lines.filter(({ state }) => state === "warning");
    const [first] = slow;
    if (!first) {
      const [only] = lines;
      return lines.length === 1 && only
        ? { state: "ok", value: only.value }
        : { state: "ok", value: `as usual on all ${lines.length} GPUs`, more };
    }
    const wayOut = "Look at nvidia-smi -q -d PERFORMANCE, and end what else computes there.";
    if (lines.length === 1) return { state: "warning", value: first.value, wayOut };
    return { state: "warning", value: `${slow.length} of ${lines.length} GPUs are slow`, wayOut, more };
  },
});

/** nvidia-smi knows all GPUs, ranks those of CUDA_VISIBLE_DEVICES. */
function ofRanks(host: Host, smi: readonly SmiGpu[]): (SmiGpu | null)[] {
  const gpus = host.gpus();
  return visibleGpus(gpus, host.environment.CUDA_VISIBLE_DEVICES).map((word) => {
    const gpu = gpuNamed(gpus, word);
    return (gpu && smi[gpus.indexOf(gpu)]) ?? null;
  });
}

/** One GPU: its rates as shares of what is usual, and what nvidia-smi says may hold it back. */
function judgeRates(
  name: string,
  { gemmTflops, copyGBs }: NonNullable<ExaminedRank["rates"]>,
  smi: SmiGpu | null | undefined,
) {
  const known = knownDevice(name);
  const measured = `${gemmTflops.toFixed(0)} TFLOP/s of bf16 products, copies at ${copyGBs.toFixed(0)} GB/s`;
  if (!known) return { state: "ok" as const, value: `${measured}; what is usual for ${name} is not known` };
  const gemm = gemmTflops / (known.bf16Tflops * usualShare.gemm);
  const copy = copyGBs / (known.memoryGBs * usualShare.copy);
  const percent = (share: number) => `${Math.round(share * 100)} %`;
  if (Math.min(gemm, copy) >= LEAST_OF_USUAL) {
    return { state: "ok" as const, value: `${measured}: ${percent(gemm)} and ${percent(copy)} of an ${known.name}'s` };
  }
  const [what, share] = gemm < copy ? (["GEMM rate", gemm] as const) : (["copy rate", copy] as const);
  return { state: "warning" as const, value: `runs at ${percent(share)} of an ${known.name}'s ${what}${reasons(smi)}` };
}

function reasons(smi: SmiGpu | null | undefined): string {
  if (!smi) return "";
  const { powerLimit, usualPowerLimit, clock, mostClock, temperature } = smi;
  const found = [
    ...(powerLimit !== undefined && powerLimit < (usualPowerLimit ?? 0) ? [`power limit ${powerLimit} W`] : []),
    ...(clock !== undefined && clock < (mostClock ?? 0) * 0.8 ? [`clock ${clock} of ${mostClock} MHz`] : []),
    ...(temperature !== undefined && temperature > 85 ? [`${temperature} °C`] : []),
  ];
  return found.length === 0 ? "" : `: ${found.join(", ")}`;
}

/** How fast the CPU module multiplies and copies. */
export const cpuRates = defineCheck({
  ...{ name: "cpu-rates", section: "cpu", what: "Rates", bench: true, deadline: 120 },
  async look(host) {
    const { ranks } = await host.module("cpu");
    return { rates: ranks[0]?.rates ?? null, failure: ranks[0]?.ratesFailure ?? null };
  },
  judge({ rates, failure }): Finding {
    if (failure !== null)
      return { state: "warning", value: `it cannot be measured: ${failure}`, wayOut: "End other programs." };
    if (rates === null) return { state: "ok", value: "not measured: the CPU module cannot be used" };
    const gflops = (rates.gemmTflops * 1e3).toFixed(0);
    return {
      state: "ok",
      value: `${gflops} GFLOP/s of ${rates.dtype} products, copies at ${rates.copyGBs.toFixed(0)} GB/s`,
    };
  },
});

export const rates: readonly Check[] = [gpuRates, cpuRates];
