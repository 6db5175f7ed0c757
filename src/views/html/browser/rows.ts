import type { TimelineData } from "../timeline-data.js";

/** Something that a row shows. Times in tenths of a microsecond. */
export interface Item {
  readonly start: number;
  readonly end: number;
  readonly name: string;
  /** Of a kernel. */
  readonly phase?: string;
  readonly layer?: string;
  readonly shape?: string;
}

/** A row of the timeline. */
export interface Row {
  readonly rank: number;
  readonly name: string;
  readonly items: readonly Item[];
  readonly top: number;
  readonly height: number;
  /** Kernels can be chosen; spans stand around them. */
  readonly kernels: boolean;
}

/** A message between two kernels, as places in rows. */
export interface Line {
  readonly from: { readonly row: Row; readonly item: Item };
  readonly to: { readonly row: Row; readonly item: Item };
}

const [EVENT, SPAN] = [6, 3];
const heights: Readonly<Record<string, number>> = {
  compute: 22,
  aside: 14,
  copy: 12,
  stage: 16,
  step: 14,
  forward: 5,
  block: 13,
};
const AXIS = 24;
const GAP = 12;

/** The rows of all ranks, from top to bottom, and the messages between them. */
export function rowsOf({ texts, phases, ranks, arrows }: TimelineData): { rows: Row[]; lines: Line[]; height: number } {
  const text = (index: number | undefined) => texts[index ?? 0] ?? "";
  const rows: Row[] = [];
  const byLane = new Map<string, Row>();
  let top = AXIS;
  ranks.forEach(({ rank, spans, lanes }, rankIndex) => {
    for (const { kind, numbers } of spans) {
      const items: Item[] = [];
      for (let at = 0; at < numbers.length; at += SPAN) {
        const [start = 0, duration = 0, name] = numbers.slice(at, at + SPAN);
        items.push({ start, end: start + duration, name: text(name) });
      }
      const height = heights[kind] ?? 12;
      rows.push({ rank, name: kind, items, top, height, kernels: false });
      top += height + 2;
    }
    lanes.forEach(({ name, events }, laneIndex) => {
      const items: Item[] = [];
      let start = 0;
      for (let at = 0; at < events.length; at += EVENT) {
        const [gap = 0, duration = 0, kernel, phase = 0, layer, shape] = events.slice(at, at + EVENT);
        start += gap;
        const facts = { name: text(kernel), phase: phases[phase] ?? "", layer: text(layer), shape: text(shape) };
        items.push({ start, end: start + duration, ...facts });
      }
      const height = heights[name] ?? 12;
      const row = { rank, name, items, top, height, kernels: true };
      byLane.set(`${rankIndex} ${laneIndex}`, row);
      rows.push(row);
      top += height + 2;
    });
    top += GAP;
  });
  const lines: Line[] = [];
  for (let at = 0; at < arrows.length; at += 6) {
    const [fromRank, fromLane, fromEvent = 0, toRank, toLane, toEvent = 0] = arrows.slice(at, at + 6);
    const [from, to] = [byLane.get(`${fromRank} ${fromLane}`), byLane.get(`${toRank} ${toLane}`)];
    const [sent, awaited] = [from?.items[fromEvent], to?.items[toEvent]];
    if (from && to && sent && awaited) lines.push({ from: { row: from, item: sent }, to: { row: to, item: awaited } });
  }
  return { rows, lines, height: top };
}

/** Index of the first item that ends after a time. Items of a row follow each other. */
export function firstAfter(items: readonly Item[], time: number): number {
  let [low, high] = [0, items.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if ((items[middle]?.end ?? 0) > time) high = middle;
    else low = middle + 1;
  }
  return low;
}
