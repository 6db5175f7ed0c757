import { phaseNames, type TraceRank } from "../../protocol/results.js";
import { arrowsOf } from "../trace/arrows.js";
import { commonClock } from "../trace/clocks.js";

/** Numbers of an event in a lane: [microseconds·10 since the one before began, microseconds·10, name, phase, layer, shape]; the last four are indices. */
export const EVENT_NUMBERS = 6;
/** Of a span: [start, duration, name], in microseconds·10 since all began. */
export const SPAN_NUMBERS = 3;

export interface TimelineLane {
  readonly name: string;
  readonly events: readonly number[];
}

export interface TimelineRank {
  readonly rank: number;
  /** Blocks and forwards, stages and steps: each kind is a row of its own. */
  readonly spans: readonly { readonly kind: string; readonly numbers: readonly number[] }[];
  readonly lanes: readonly TimelineLane[];
}

/** What the timeline of a page draws. Times are in tenths of a microsecond on one clock. */
export interface TimelineData {
  /** Names of kernels, layers, shapes and spans; the first is empty. */
  readonly texts: readonly string[];
  readonly phases: readonly string[];
  readonly ranks: readonly TimelineRank[];
  /** From lane and event to lane and event: [rank, lane, event, rank, lane, event] as indices, one after the other. */
  readonly arrows: readonly number[];
  /** What to show first, and what else there is to show: name, start and end. */
  readonly views: readonly { readonly name: string; readonly from: number; readonly to: number }[];
}

/** Events of all ranks together: more would make the page too large. */
const MOST_EVENTS = 16_000;
const tenths = (microseconds: number) => Math.round(microseconds * 10);
const streams = ["compute", "aside", "copy"];
const spanKinds = ["stage", "step", "forward", "block"];

/** How many ranks, from the first on, fit into a page. */
export function shownRanks(ranks: readonly Pick<TraceRank, "trace">[]): number {
  let events = 0;
  const over = ranks.findIndex(({ trace }) => {
    events += trace.length;
    return events > MOST_EVENTS;
  });
  return over === -1 ? ranks.length : Math.max(1, over);
}

/** The trace as a page carries it. @param recorded what the recorded part is called, where there is more than that. */
export function timelineData(all: readonly TraceRank[], recorded?: string): TimelineData {
  const { starts } = commonClock(all);
  const ranks = all.slice(0, shownRanks(all));
  const indices = new Map<string, number>([["", 0]]);
  const textOf = (text: string) => {
    const known = indices.get(text);
    if (known !== undefined) return known;
    indices.set(text, indices.size);
    return indices.size - 1;
  };
  const offsetOf = (index: number) => starts[index]?.startMicroseconds ?? 0;
  const earliest = Math.min(
    ...ranks.flatMap(({ spans, trace }, index) =>
      [...spans, ...trace.slice(0, 1)].map(({ startMicroseconds }) => offsetOf(index) + startMicroseconds),
    ),
  );
  /** Where each event of a rank went: its lane and its place there. */
  const places = new Map<number, [number, number, number][]>();
  const drawn = ranks.map(({ rank, trace, spans }, index): TimelineRank => {
    const offset = offsetOf(index) - earliest;
    const used = streams.filter((stream) => trace.some((event) => event.stream === stream));
    const lanes = used.map((name) => ({ name, events: [] as number[], last: 0 }));
    places.set(
      rank,
      trace.map((event) => {
        const at = used.indexOf(event.stream);
        const lane = lanes[at];
        if (!lane) throw new Error(`There is no lane ${event.stream}.`);
        const start = tenths(offset + event.startMicroseconds);
        const { durationMicroseconds, name, phase, layer = "", shape } = event;
        lane.events.push(start - lane.last, tenths(durationMicroseconds), textOf(name), phaseNames.indexOf(phase));
        lane.events.push(textOf(layer), textOf(shape));
        lane.last = start;
        return [index, at, lane.events.length / EVENT_NUMBERS - 1];
      }),
    );
    const rows = spanKinds.flatMap((kind) => {
      const own = spans.filter((span) => span.kind === kind);
      const numbers = own.flatMap(({ name, startMicroseconds, durationMicroseconds }) => [
        ...[tenths(offset + startMicroseconds), tenths(durationMicroseconds), textOf(name)],
      ]);
      return own.length === 0 ? [] : [{ kind, numbers }];
    });
    return { rank, spans: rows, lanes: lanes.map(({ name, events }) => ({ name, events })) };
  });
  const at = ({ rank, event }: { rank: number; event: number }) => places.get(rank)?.[event] ?? [];
  const arrows = arrowsOf(ranks).flatMap(({ from, to }) => [...at(from), ...at(to)]);
  const ends = (only: "trace" | "all") =>
    ranks.flatMap(({ trace, spans }, index) =>
      [...trace, ...(only === "all" ? spans : [])].map(
        ({ startMicroseconds, durationMicroseconds }) =>
          offsetOf(index) - earliest + startMicroseconds + durationMicroseconds,
      ),
    );
  const whole = { name: "all", from: 0, to: tenths(Math.max(1, ...ends("all"))) };
  const first = Math.min(
    ...ranks.flatMap(({ trace }, index) =>
      trace.map(({ startMicroseconds }) => offsetOf(index) - earliest + startMicroseconds),
    ),
  );
  const views =
    recorded === undefined
      ? [whole]
      : [whole, { name: recorded, from: tenths(first), to: tenths(Math.max(...ends("trace"))) }];
  return { texts: [...indices.keys()], phases: phaseNames, ranks: drawn, arrows, views };
}
