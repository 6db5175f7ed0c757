import { defineCheck, type Finding } from "../check.js";
import type { ExaminedPair } from "../examine.js";

/** A way that carries less than this part of the fastest is told of. */
const LEAST_OF_BEST = 0.6;

interface Facts {
  readonly device: "GPU" | "worker";
  readonly pairs: readonly ExaminedPair[];
}

/** What a copy carries from each worker's memory to each other's, one at a time. */
export const bandwidth = defineCheck({
  ...{ name: "bandwidth", section: "links", what: "Bandwidth", bench: true, deadline: 120 },
  async look(host): Promise<Facts> {
    const { pairs } = await host.module("cuda");
    if (pairs.length > 0) return { device: "GPU", pairs };
    return { device: "worker", pairs: (await host.module("cpu")).pairs };
  },
  judge({ device, pairs }): Finding {
    const rates = pairs.flatMap(({ gigabytesPerSecond: rate }) => (rate === null ? [] : [rate]));
    if (rates.length === 0) return { state: "ok", value: "no link to measure" };
    const [least, most] = [Math.min(...rates), Math.max(...rates)];
    const count = 1 + Math.max(...pairs.map(({ to }) => to));
    const more = count > 2 ? matrix(pairs, count) : [];
    const span = least.toFixed(0) === most.toFixed(0) ? most.toFixed(0) : `${least.toFixed(0)} to ${most.toFixed(0)}`;
    const value = `${span} GB/s from one ${device}'s memory to another's`;
    if (device === "worker" || least >= LEAST_OF_BEST * most) return { state: "ok", value, more };
    const slow = pairs.filter(({ gigabytesPerSecond: rate }) => rate !== null && rate < LEAST_OF_BEST * most);
    const [first] = slow;
    return {
      state: "warning",
      value: `${value}: ${slow.length} of ${pairs.length} ways are slow, as from ${first?.from} to ${first?.to}`,
      wayOut:
        "nvidia-smi topo -m shows the links. Give tp and ring to GPUs that NVLink joins, by CUDA_VISIBLE_DEVICES.",
      more,
    };
  },
});

/** A row for each that reads, a column for each that is read. */
function matrix(pairs: readonly ExaminedPair[], count: number): string[] {
  const indices = Array.from({ length: count }, (_, index) => index);
  const cell = (text: string) => text.padStart(6);
  const rateOf = (to: number, from: number) =>
    pairs.find((pair) => pair.to === to && pair.from === from)?.gigabytesPerSecond?.toFixed(0) ?? "-";
  return [
    `GB/s  ${indices.map((from) => cell(String(from))).join("")}`,
    ...indices.map((to) => `to ${String(to).padEnd(3)}${indices.map((from) => cell(rateOf(to, from))).join("")}`),
  ];
}
