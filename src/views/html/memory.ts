import type { MemoryPoint, TraceEvent } from "../../protocol/results.js";
import { bytesInWords } from "../../text.js";
import { byteSize, figures } from "../figures.js";
import { bars } from "./bars.js";
import { html, type Markup } from "./markup.js";

const [WIDTH, HEIGHT] = [1000, 190];
const frame = { left: 70, right: 990, top: 12, bottom: 158 };

/** What the forward's own memory held through time, as launches found it. Undefined where nothing was recorded. */
export function arenaChart(events: readonly TraceEvent[]): Markup | undefined {
  const computed = events.filter(({ stream }) => stream === "compute");
  const last = computed.at(-1);
  const most = Math.max(0, ...computed.map(({ arenaBytes }) => arenaBytes));
  if (!last || most === 0) return undefined;
  const endMicroseconds = last.startMicroseconds + last.durationMicroseconds;
  const x = (time: number) =>
    Math.round((frame.left + (time / endMicroseconds) * (frame.right - frame.left)) * 10) / 10;
  const y = (bytes: number) => Math.round((frame.bottom - (bytes / most) * (frame.bottom - frame.top)) * 10) / 10;
  // Steps: what a launch finds in use stays so until the next one.
  const steps = computed
    .map(({ startMicroseconds, arenaBytes }) => `H${x(startMicroseconds)}V${y(arenaBytes)}`)
    .join("");
  const line = `M${x(0)} ${y(computed[0]?.arenaBytes ?? 0)}${steps}H${x(endMicroseconds)}`;
  return html`<div class="wide" tabindex="0"><svg viewBox="0 0 ${WIDTH} ${HEIGHT}" role="img" aria-label="Memory of the forward's intermediate results: at most ${byteSize(most)}">
<line class="axis" x1="${frame.left}" x2="${frame.right}" y1="${frame.top}" y2="${frame.top}"/><line class="axis" x1="${frame.left}" x2="${frame.right}" y1="${frame.bottom}" y2="${frame.bottom}"/>
<path class="area" d="${line}V${frame.bottom}H${frame.left}Z"/><path class="curve" d="${line}"/>
<text x="${frame.left - 8}" y="${frame.top + 5}" text-anchor="end">${byteSize(most)}</text><text x="${frame.left - 8}" y="${frame.bottom + 4}" text-anchor="end">0</text>
<text x="${frame.left}" y="${frame.bottom + 20}">0</text><text x="${frame.right}" y="${frame.bottom + 20}" text-anchor="end">${figures(endMicroseconds / 1e3)} ms</text>
</svg></div>`;
}

/** Device memory after each thing that was done: of the rank that held the most. */
export function memoryBars(points: readonly MemoryPoint[]): Markup {
  const rows = points.map(({ after, bytes }) => ({
    name: `after ${after}`,
    parts: [{ kind: "plain", name: "held", value: bytes }],
  }));
  return bars(rows, { unit: "", figuresOf: bytesInWords });
}

/** The rank whose memory was fullest. */
export function fullest<T extends { readonly memory: readonly MemoryPoint[] }>(ranks: readonly T[]): T | undefined {
  const most = ({ memory }: T) => Math.max(0, ...memory.map(({ bytes }) => bytes));
  return ranks.toSorted((a, b) => most(b) - most(a))[0];
}
