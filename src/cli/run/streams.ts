import type { StreamName } from "../../launcher/rank-lines.js";
import { refuse } from "../option.js";

/** Whether a stream of a rank of this host is meant. */
export type StreamChoice = (localRank: number, stream: StreamName) => boolean;

/**
 * torchrun's words for streams (`torch/distributed/elastic/multiprocessing/api.py`, Std): 0 none, 1 stdout, 2 stderr, 3 both; or
 * `RANK:N,…` for single ranks. @throws DitrunError for anything else.
 */
export function parseStreams(text: string, name: string): StreamChoice {
  const chosen = (digit: number, stream: StreamName) => (digit & (stream === "stdout" ? 1 : 2)) !== 0;
  if (/^[0-3]$/.test(text)) return (_, stream) => chosen(Number(text), stream);
  const single = new Map<number, number>();
  for (const word of text.split(",")) {
    const [, rank, digit] = /^(\d+):([0-3])$/.exec(word) ?? [];
    if (rank === undefined || single.has(Number(rank)))
      refuse(name, text, "0, 1, 2 or 3, or RANK:0 to RANK:3 of different ranks, separated by commas");
    single.set(Number(rank), Number(digit));
  }
  return (rank, stream) => chosen(single.get(rank) ?? 0, stream);
}

/** torchrun's words for parts of lines: separated by commas, where `,,` is a comma. @throws DitrunError for one that is empty. */
export function parseFilters(text: string, name: string): readonly string[] {
  const words = text.replaceAll(",,", "\0").split(",");
  if (words.some((word) => word === "")) refuse(name, text, "parts of lines, separated by commas");
  return words.map((word) => word.replaceAll("\0", ","));
}

/** Where lines go, as the options say. */
export interface StreamWishes {
  readonly redirects: StreamChoice | undefined;
  readonly tee: StreamChoice | undefined;
  /** Ranks of this host whose lines are shown; all by default. */
  readonly filter: ReadonlySet<number> | undefined;
}

/**
 * As torchrun does, except that files keep both streams of all ranks where only their folder is given.
 * @param first of this host's ranks, which may be known only later.
 */
export function whereLinesGo({ redirects, tee, filter }: StreamWishes, first: { readonly rank: number } = { rank: 0 }) {
  const all = redirects === undefined && tee === undefined;
  return (rank: number, stream: StreamName) => {
    const local = rank - first.rank;
    const teed = tee?.(local, stream) ?? false;
    const redirected = !teed && (redirects?.(local, stream) ?? false);
    return { shown: !redirected && (filter?.has(local) ?? true), kept: all || teed || redirected };
  };
}
