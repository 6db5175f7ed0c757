import { type linkPatterns, linkTransports } from "../protocol/job.js";
import type { LinksRank } from "../protocol/results.js";
import { figures } from "./figures.js";
import { type Page, paint, prose } from "./page.js";
import { percentile } from "./statistics.js";
import { type Column, formatTable } from "./table.js";

type Transport = (typeof linkTransports)[number];
type Pattern = (typeof linkPatterns)[number];

/** One line of the result. */
export interface LinkSummary {
  transport: Transport;
  pattern: Pattern;
  bytes: number;
  /** Median over the repetitions, each of which takes as long as its slowest rank. */
  microseconds: number;
  /** What a rank with all its neighbours sends (and receives) a second; see `sentBytes`. */
  gigabytesPerSecond: number;
}

/**
 * Bytes that a rank sends in one exchange of a message. All-reduce: 2 (n - 1) / n of it, the least that any algorithm can,
 * whatever this one does (the "bus bandwidth" of nccl-tests, doc/PERFORMANCE.md). Ring shift: the message. Halo: one message
 * to each of two neighbours; two ranks have one.
 */
function sentBytes(pattern: Pattern, bytes: number, workers: number): number {
  if (pattern.endsWith("all-reduce")) return (2 * bytes * (workers - 1)) / workers;
  return pattern === "halo" ? bytes * Math.min(2, workers - 1) : bytes;
}

/** What the ranks measured over one transport. */
export function summarizeLinks(transport: Transport, ranks: readonly LinksRank[]): LinkSummary[] {
  return (ranks[0]?.links ?? []).map(({ pattern, bytes, microseconds: first }, index) => {
    const slowest = first.map((_, i) => Math.max(...ranks.map(({ links }) => links[index]?.microseconds[i] ?? 0)));
    const microseconds = percentile(slowest, 0.5);
    const gigabytesPerSecond = sentBytes(pattern, bytes, ranks.length) / (microseconds * 1e3);
    return { transport, pattern, bytes, microseconds, gigabytesPerSecond };
  });
}

/** What the patterns are in a model. */
const meanings: Readonly<Record<Pattern, string>> = {
  "all-reduce": "the sums of tensor parallel layers (tp)",
  "ring shift": "keys and values that pass from worker to worker (cp)",
  halo: "rows of a video that neighbours lend each other while it is decoded",
  "NCCL all-reduce": "NCCL's own sum, which no layer uses, to compare with",
};

interface Row {
  readonly pattern: Pattern;
  readonly bytes: number;
  readonly of: (transport: Transport) => LinkSummary | undefined;
}

/** A row per pattern and size, two columns per transport, and what the patterns mean. */
export function linksTable(page: Page, device: string, workers: number, results: readonly LinkSummary[]): string {
  const patterns = [...new Set(results.map(({ pattern }) => pattern))];
  const sizes = [...new Set(results.map(({ bytes }) => bytes))];
  const rows: Row[] = patterns.flatMap((pattern) =>
    sizes.map((bytes) => ({
      ...{ pattern, bytes },
      of: (transport) =>
        results.find((each) => each.transport === transport && each.pattern === pattern && each.bytes === bytes),
    })),
  );
  const columns: Column<Row>[] = [
    { head: "pattern", align: "left", cell: ({ pattern }) => pattern },
    { head: "KiB", cell: ({ bytes }) => String(bytes / 1024) },
    ...linkTransports.flatMap((transport): Column<Row>[] => [
      { head: `${transport} µs`, cell: ({ of }) => numberOr(of(transport)?.microseconds) },
      {
        head: `${transport} GB/s each way`,
        short: "GB/s",
        cell: ({ of }) => numberOr(of(transport)?.gigabytesPerSecond),
      },
    ]),
  ];
  return [
    paint(page, "bold", prose(page, `Messages between ${workers} workers, ${device}; medians`)),
    formatTable(page, columns, rows),
    ...patterns.map((pattern) => prose(page, `${pattern}: ${meanings[pattern]}.`)),
  ].join("\n");
}

const numberOr = (value: number | undefined) => (value === undefined ? "" : figures(value));
