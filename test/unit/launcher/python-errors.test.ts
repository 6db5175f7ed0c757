import { describe, expect, test } from "vitest";
import { LastLines } from "../../../src/launcher/last-lines.js";
import { errorFileMessage } from "../../../src/launcher/python-errors.js";

function read(text: string, size = 1): LastLines {
  const last = new LastLines();
  const lines = text.split("\n");
  for (let at = 0; at < lines.length; at += size) last.add(lines.slice(at, at + size));
  return last;
}

const traceback = `Traceback (most recent call last):
  File "train.py", line 3, in <module>
    raise KeyError("first")
KeyError: 'first'

During handling of the above exception, another exception occurred:

Traceback (most recent call last):
  File "train.py", line 5, in <module>
    step()
ValueError: no such layer`;

describe("the exception that ended a program", () => {
  test.each([1, 100])("is the last line of its last traceback, read %i lines at a time", (size) => {
    expect(read(`${traceback}\nsome words of a library's end\nand more`, size).exception).toBe(
      "ValueError: no such layer",
    );
  });

  test("is found behind the rank that PyTorch writes before it", () => {
    const text = traceback.split("\n").map((line) => `[rank1]: ${line}`);
    expect(read(text.join("\n")).exception).toBe("ValueError: no such layer");
  });

  test("is none of other lines", () => {
    expect(read("ValueError: no such layer\n  indented\nTraceback is a word").exception).toBeUndefined();
  });

  test("does not steer the terminal", () => {
    expect(read("Traceback (most recent call last):\n  x\nE: \x1b[2J").exception).toBe("E: \\x1b[2J");
  });
});

describe("where a program was when a signal met it", () => {
  const stack = (frames: string[]) =>
    [
      ...["Fatal Python error: Aborted", "", "Thread 0x00007f12 (most recent call first):"],
      ...['  File "other.py", line 9 in run', "", "Current thread 0x00007f13 [python] (most recent call first):"],
      ...frames,
      ...["", "Extension modules: numpy"],
    ].join("\n");

  test("is the first frame of its own files", () => {
    const frames = [
      '  File "/usr/lib/python3/dist-packages/torch/distributed/distributed_c10d.py", line 1320 in all_reduce',
      '  File "/home/me/train.py", line 31 in step',
      '  File "/home/me/train.py", line 40 in <module>',
    ];
    expect(read(stack(frames)).place).toBe("step (train.py:31)");
    expect(read(stack(frames.slice(0, 1))).place).toBe("all_reduce (distributed_c10d.py:1320)");
  });

  test("is unknown without a stack", () => {
    expect(read(traceback).place).toBeUndefined();
  });
});

test.each([
  ["an object with message", { message: "broken" }, "broken"],
  [
    "as PyTorch writes it",
    { message: { message: "ValueError: x\nmore", extraInfo: { timestamp: "1" } } },
    "ValueError: x",
  ],
  ["another number", { message: { text: 1 } }, undefined],
  ["an empty message", { message: "" }, undefined],
  ["an array", [1], undefined],
])("an error file: %s", (_, content, message) => {
  expect(errorFileMessage(JSON.stringify(content))).toBe(message);
});

test("an error file that is none says nothing", () => {
  expect(errorFileMessage("{")).toBeUndefined();
});
