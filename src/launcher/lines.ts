import type { Readable } from "node:stream";

/** A line longer than this is passed on in pieces, so that a worker that never ends its line cannot fill memory. */
const LONGEST_LINE = 64 * 1024;

/** Calls `take` for each line of a stream, without its end, and for an unfinished last line when the stream ends. */
export function readLines(stream: Readable, take: (line: string) => void): void {
  let rest = "";
  stream.setEncoding("utf8");
  stream.on("data", (chunk: string) => {
    const lines = (rest + chunk).split("\n");
    rest = lines.pop() ?? "";
    for (const line of lines) take(line.replace(/\r$/, ""));
    if (rest.length > LONGEST_LINE) {
      take(rest);
      rest = "";
    }
  });
  stream.on("close", () => {
    if (rest !== "") take(rest);
    rest = "";
  });
}
