import { expect, test } from "vitest";
import { LastLines } from "../../../src/launcher/last-lines.js";
import { harmless, visible } from "../../../src/launcher/terminal-text.js";

test("control characters are written out; text, tabs and other alphabets stay", () => {
  expect(visible("\x1b]0;title\x07\x1b[2Jred\r[rank 0] forged\0")).toBe(
    "\\x1b]0;title\\x07\\x1b[2Jred\\x0d[rank 0] forged\\x00",
  );
  expect(visible("\u009b31m \u202egnp.exe\u2028")).toBe("\\x9b31m \\u202egnp.exe\\u2028");
  expect(visible("a\tb é 視頻 🎬")).toBe("a\tb é 視頻 🎬");
});

test("a message cannot pass for a line of the launcher, nor fill a screen", () => {
  expect(harmless("broke\nditrun: all is well\x1b[2J")).toBe("broke\n  ditrun: all is well\\x1b[2J");
  expect(harmless("m".repeat(3e6))).toBe(`${"m".repeat(4000)} … and 2996000 more characters`);
});

test("what V8 says when its memory ends is not pushed out by its stack", () => {
  const tail = new LastLines();
  tail.add(["one", "", "FATAL ERROR: Reached heap limit Allocation failed - JavaScript heap out of memory"]);
  tail.add([
    "----- Native stack trace -----",
    "",
    ...Array.from({ length: 20 }, (_, i) => `${String(i).padStart(2)}: 0xca5580 node::Abort() [node]`),
  ]);
  expect(tail.shown).toEqual([
    "one",
    "FATAL ERROR: Reached heap limit Allocation failed - JavaScript heap out of memory",
  ]);
});

test("the last twelve lines are kept, each as long as somebody reads", () => {
  const tail = new LastLines();
  tail.add(Array.from({ length: 30 }, (_, i) => `line ${i}`));
  tail.add(["x".repeat(60_000)]);
  expect(tail.shown).toHaveLength(12);
  expect(tail.shown[0]).toBe("line 19");
  expect(tail.shown[11]).toBe(`${"x".repeat(1000)} …`);
});
