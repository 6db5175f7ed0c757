import { PassThrough } from "node:stream";
import { setImmediate as nextTurn } from "node:timers/promises";
import { expect, test } from "vitest";
import { LineReader } from "../../../src/launcher/lines.js";

async function linesOf(...pieces: string[]): Promise<string[]> {
  const stream = new PassThrough();
  const taken: string[] = [];
  const reader = new LineReader(stream, (lines) => {
    taken.push(...lines);
    return undefined;
  });
  for (const piece of pieces) {
    stream.write(piece);
    await nextTurn();
  }
  reader.finish();
  return taken;
}

test.each<[string, string[], string[]]>([
  ["lines of both kinds of ends", ["a\nb\r\n\r\n\nc"], ["a", "b", "", "", "c"]],
  ["an end in two pieces", ["a\r", "\nb\n"], ["a", "b"]],
  ["states of a progress bar", ["\r 0%", "\r 50%\r", " 100%\n", "done\n"], [" 0%", " 50%", " 100%", "done"]],
  ["states in one piece", ["\r 0%\r 50%\r 100%\n"], [" 0%", " 50%", " 100%"]],
  ["several carriage returns at once", ["x\r\r\ry\n"], ["x", "y"]],
])("%s", async (_, pieces, lines) => {
  expect(await linesOf(...pieces)).toEqual(lines);
});
