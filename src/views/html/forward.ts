import { type KernelTotal, phaseNames, type TraceRank } from "../../protocol/results.js";
import { figures, threeDigits } from "../figures.js";
import { sum } from "../statistics.js";
import { type Bar, bars, legend } from "./bars.js";
import { type Finding, type ForwardFacts, findingsOf, type RankFacts } from "./findings.js";
import { html, type Markup } from "./markup.js";
import { arenaChart } from "./memory.js";
import { folded, section, table } from "./page.js";
import { type Peaks, pointsOf, rooflineChart } from "./roofline.js";
import { phaseKinds } from "./timeline.js";

/** More ranks than these are not shown one by one. */
const MOST_BARS = 32;

function barOf({ rank, recordedMs, phases }: RankFacts): Bar {
  const parts = phaseNames.map((kind) => ({ kind, name: kind, value: phases[kind] }));
  const idle = Math.max(0, recordedMs - sum(parts.map(({ value }) => value)));
  return { name: `rank ${rank}`, parts: [...parts, { kind: "idle", name: "nothing runs", value: idle }] };
}

/** Where the recorded forward's time went, a bar for each rank. */
export function timeSection(ranks: readonly RankFacts[], note: string): Markup {
  const shown = ranks.slice(0, MOST_BARS);
  const rest = ranks.length - shown.length;
  const waits = ranks.filter(({ ringWaitsMs }) => ringWaitsMs.length > 1);
  const heads = [
    "rank",
    ...(waits[0]?.ringWaitsMs ?? []).map((_, step) => (step === 0 ? "own block" : `step ${step}`)),
  ];
  const rows = waits.map(({ rank, ringWaitsMs }) => [String(rank), ...ringWaitsMs.map(figures)]);
  return section(
    "time",
    "Where the time went",
    `${note}${rest > 0 ? ` The other ${rest} ranks are in the JSON document.` : ""}`,
    bars(shown.map(barOf), { unit: "ms" }),
    legend(phaseKinds),
    ...(rows.length > 0 ? [folded("Waits for the ring, by step, in ms", table(heads, rows))] : []),
  );
}

const shownGain = ({ gainMs }: Finding) =>
  gainMs === null
    ? html`<span class="gain">note</span>`
    : html`<span class="gain">${figures(gainMs)} ms <small>at most</small></span>`;

/** What there is to gain, the most first. */
export function findingsSection(facts: ForwardFacts): Markup {
  const found = findingsOf(facts);
  const note =
    found.length === 0
      ? "Nothing stands out: no wait, gap or kernel costs 2 % of a forward beyond what the device needs."
      : "Milliseconds of a forward that would go if each were gone. They do not add up: what one removes, another may have hidden.";
  const list = html`<ul class="findings">${found.map(
    (each) => html`<li>${shownGain(each)}<div><h3>${each.what}</h3><p>${each.why}</p></div></li>`,
  )}</ul>`;
  return section("findings", "What there is to gain", note, ...(found.length === 0 ? [] : [list]));
}

/** Kernels against the device's peaks. */
export function rooflineSection(kernels: readonly KernelTotal[], peaks: Peaks, rank: number): Markup {
  const known = peaks.tflops !== null && peaks.gigabytesPerSecond !== null;
  const note = known
    ? `Kernels of rank ${rank} with operations, by size of the time they take. Those far below the line leave the device unused.`
    : `Kernels of rank ${rank} with operations, by size of the time they take. What this device can do at most is not known, so there is no line.`;
  const rate = (work: number, milliseconds: number, unit: number) =>
    work === 0 || milliseconds === 0 ? "" : threeDigits(work / (milliseconds * unit));
  const rows = kernels.map(({ name, shape, phase, launches, milliseconds, flops, bytes, roofMs }) => [
    ...[`${name} ${shape}`.trimEnd(), phase, launches === 0 ? "" : String(launches), figures(milliseconds)],
    ...[rate(flops, milliseconds, 1e9), rate(bytes, milliseconds, 1e6)],
    roofMs === null || roofMs === 0 || milliseconds === 0 ? "" : `${threeDigits((100 * roofMs) / milliseconds)} %`,
  ]);
  const heads = ["kernel and shape", "kind", "launches", "ms", "TFLOP/s", "GB/s", "of peak"];
  const chart = rooflineChart(kernels, peaks);
  return section(
    "roofline",
    "Kernels beside the roof",
    pointsOf(kernels).length === 0 ? undefined : note,
    ...(chart ? [chart] : []),
    folded("All kernels", table(heads, rows, [0])),
  );
}

/** The forward's own memory through time. */
export function arenaPart({ rank, trace }: Pick<TraceRank, "rank" | "trace">): Markup | undefined {
  const chart = arenaChart(trace);
  return chart && html`<p>Intermediate results of the recorded forward on rank ${rank}, through its time:</p>${chart}`;
}
