import { z } from "zod";
import { kernelTotalSchema, phaseNames, phasesSchema } from "../../protocol/results.js";
import { figures, threeDigits } from "../figures.js";
import { type Setting, settingsApart } from "./settings.js";

const latency = z.looseObject({ median: z.number(), p10: z.number(), p90: z.number() });
const common = {
  schemaVersion: z.literal(1),
  commandLine: z.array(z.string()),
  startedAt: z.string(),
  host: z.string(),
  plan: z.looseObject({ name: z.string().optional() }),
  model: z.looseObject({ name: z.string() }),
  worldSize: z.int(),
};
const profile = z.looseObject({
  ...common,
  command: z.enum(["profile", "wan profile"]),
  latencyMs: latency,
  tflops: z.number(),
  recordedMs: z.number(),
  phasesMs: phasesSchema,
  ranks: z
    .array(
      z.looseObject({
        ringWaitsMs: z.array(z.number()),
        kernels: z.array(kernelTotalSchema),
        peakMemoryBytes: z.number(),
      }),
    )
    .min(1),
});
const stage = z.number();
const generate = z.looseObject({
  ...common,
  command: z.literal("wan generate"),
  stages: z.looseObject({ prepareMs: stage, encodeMs: stage, sampleMs: stage, decodeMs: stage, videoMs: stage }),
  totalMs: z.number(),
  forwardMs: latency,
  secondsPerStep: z.number(),
  peakMemoryBytes: z.number(),
});

/** Results that can be compared, as --json writes them. */
export const comparedSchema = z.discriminatedUnion("command", [profile, generate]);
export type Compared = z.infer<typeof comparedSchema>;

/** A number of both results. */
export interface Change {
  readonly name: string;
  readonly unit: string;
  readonly a: number;
  readonly b: number;
  /** (b - a) / a in per cent; null where a is 0. */
  readonly percent: number | null;
  /** Whether less of it is better. */
  readonly less: boolean;
}

/** A part of the time, and how much of the whole change it is. */
export interface Part {
  readonly name: string;
  readonly a: number;
  readonly b: number;
  readonly deltaMs: number;
}

export interface ResultComparison {
  readonly kind: "results";
  readonly subject: string;
  /** The first is what the verdict and --fail-above are about. */
  readonly changes: readonly Change[];
  /** Kinds of work, or stages; the largest change first. */
  readonly parts: readonly Part[];
  /** Kernels of rank 0, the same way. */
  readonly kernels: readonly Part[];
  readonly settings: readonly Setting[];
  readonly slowerPercent: number;
  readonly verdict: string;
}

const change = (name: string, unit: string, a: number, b: number, less = true): Change => ({
  ...{ name, unit, a, b, less },
  percent: a === 0 ? null : (100 * (b - a)) / a,
});
const byChange = (parts: Part[]) => parts.sort((x, y) => Math.abs(y.deltaMs) - Math.abs(x.deltaMs));
const part = (name: string, a: number, b: number): Part => ({ name, a, b, deltaMs: b - a });
const GIB = 2 ** 30;

/** Two results of one kind, side by side. @throws RangeError where they are not of one kind. */
export function compareResults(a: Compared, b: Compared): ResultComparison {
  const settings = settingsApart(a, b);
  if (a.command === "wan generate" || b.command === "wan generate") {
    if (a.command !== "wan generate" || b.command !== "wan generate") {
      throw new RangeError(`one is of ${a.command} and the other of ${b.command}`);
    }
    const stages = ["encodeMs", "sampleMs", "decodeMs", "videoMs"] as const;
    const changes = [
      change("from the texts to the file", "s", a.totalMs / 1e3, b.totalMs / 1e3),
      change("a step", "s", a.secondsPerStep, b.secondsPerStep),
      change("forward, median", "ms", a.forwardMs.median, b.forwardMs.median),
      change("getting ready", "s", a.stages.prepareMs / 1e3, b.stages.prepareMs / 1e3),
      change("memory of a worker", "GiB", a.peakMemoryBytes / GIB, b.peakMemoryBytes / GIB),
    ];
    const parts = byChange(stages.map((name) => part(name.replace(/Ms$/, ""), a.stages[name], b.stages[name])));
    return finished({ subject: "a video", changes, parts, kernels: [], settings, noisePercent: 0 });
  }
  const most = (ranks: readonly { peakMemoryBytes: number }[]) =>
    Math.max(...ranks.map((rank) => rank.peakMemoryBytes)) / GIB;
  const changes = [
    change("forward, median", "ms", a.latencyMs.median, b.latencyMs.median),
    change("forward, p90", "ms", a.latencyMs.p90, b.latencyMs.p90),
    change("speed", "TFLOP/s", a.tflops, b.tflops, false),
    change("recorded forward", "ms", a.recordedMs, b.recordedMs),
    change("memory of a worker", "GiB", most(a.ranks), most(b.ranks)),
  ];
  const idle = ({ recordedMs, phasesMs }: typeof a) =>
    Math.max(0, recordedMs - phaseNames.reduce((sum, name) => sum + phasesMs[name], 0));
  const parts = [
    ...phaseNames.map((name) => part(name, a.phasesMs[name], b.phasesMs[name])),
    part("nothing runs", idle(a), idle(b)),
  ];
  const spread = ({ median, p10, p90 }: z.infer<typeof latency>) => (100 * (p90 - p10)) / 2 / median;
  const noisePercent = Math.max(spread(a.latencyMs), spread(b.latencyMs));
  return finished({
    subject: "a forward",
    changes,
    parts: byChange(parts),
    kernels: kernelsApart(a, b),
    settings,
    noisePercent,
  });
}

/** Kernels whose time changed by at least this share of the forward. */
const WORTH = 0.002;

function kernelsApart(a: z.infer<typeof profile>, b: z.infer<typeof profile>): Part[] {
  const totals = ({ ranks }: typeof a) => {
    const sums = new Map<string, number>();
    for (const { name, shape, milliseconds } of ranks[0]?.kernels ?? []) {
      const key = `${name} ${shape}`.trimEnd();
      sums.set(key, (sums.get(key) ?? 0) + milliseconds);
    }
    return sums;
  };
  const [before, after] = [totals(a), totals(b)];
  const all = [...new Set([...before.keys(), ...after.keys()])];
  const parts = all.map((name) => part(name, before.get(name) ?? 0, after.get(name) ?? 0));
  return byChange(parts).filter(({ deltaMs }) => Math.abs(deltaMs) >= WORTH * a.recordedMs);
}

type Facts = Omit<ResultComparison, "kind" | "slowerPercent" | "verdict"> & { readonly noisePercent: number };

function finished({ noisePercent, ...facts }: Facts): ResultComparison {
  const slowerPercent = facts.changes[0]?.percent ?? 0;
  return { kind: "results", ...facts, slowerPercent, verdict: verdictOf(facts, slowerPercent, noisePercent) };
}

function verdictOf(
  { changes, parts, settings, subject }: Omit<Facts, "noisePercent">,
  percent: number,
  noise: number,
): string {
  const [first] = changes;
  if (!first) return "there is nothing to compare.";
  const from = `${figures(first.a)} to ${figures(first.b)} ${first.unit}`;
  const settingsWords =
    settings.length === 0
      ? "no setting differs"
      : `${settings.length === 1 ? "one setting differs" : `${settings.length} settings differ`}: ${settings
          .slice(0, 3)
          .map(({ name }) => name)
          .join(", ")}${settings.length > 3 ? ", …" : ""}`;
  if (Math.abs(percent) <= noise) {
    return `as fast: ${from} for ${subject}, within the ${threeDigits(noise)} % by which forwards differ; ${settingsWords}.`;
  }
  const [largest] = parts.filter(({ deltaMs }) => Math.sign(deltaMs) === Math.sign(percent));
  const why = largest ? `, most of it ${largest.name} (${signed(largest.deltaMs)} ms)` : "";
  return `B is ${threeDigits(Math.abs(percent))} % ${percent > 0 ? "slower" : "faster"}: ${from} for ${subject}${why}; ${settingsWords}.`;
}

/** `+1.25`, `−0.40`. */
export const signed = (value: number): string => `${value < 0 ? "−" : "+"}${figures(Math.abs(value))}`;
