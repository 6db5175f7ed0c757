import { EventEmitter } from "node:events";
import { afterEach, expect, test, vi } from "vitest";
import { Terminal } from "../../../src/cli/terminal.js";

afterEach(() => vi.unstubAllEnvs());

/** What a terminal that knows only \r and "erase to the end of the line" shows after all that was written to it. */
function screenOf(written: string): string[] {
  return written.split("\n").map((line) => line.split("\r\x1b[K").at(-1) ?? "");
}

function open({ isTTY = true, columns = 80 } = {}) {
  vi.stubEnv("TERM", "xterm");
  const stream = Object.assign(new EventEmitter(), {
    ...{ isTTY, columns, written: "", writableLength: 0 },
    write(text: string) {
      this.written += text;
      return true;
    },
  });
  return { stream, terminal: new Terminal(stream) };
}

test("lines push the wait down, and nothing of it stays", () => {
  const { stream, terminal } = open();
  terminal.status("[==  ] step 2/4");
  terminal.write("ditrun: a line\n");
  expect(screenOf(stream.written)).toEqual(["ditrun: a line", "[==  ] step 2/4"]);
  terminal.status("[=== ] step 3/4");
  terminal.status(undefined);
  terminal.write("ditrun: the end\n");
  expect(screenOf(stream.written)).toEqual(["ditrun: a line", "ditrun: the end", ""]);
});

test("what a user types while a wait is shown does not join the sentence that answers it", () => {
  const { stream, terminal } = open();
  terminal.status("[==  ] step 2/4");
  stream.written += "^C";
  terminal.silence();
  terminal.write("ditrun: Ended by SIGINT.\n");
  terminal.status("[=== ] step 3/4");
  expect(screenOf(stream.written)).toEqual(["ditrun: Ended by SIGINT.", ""]);
});

test("a resize writes the wait again, as it fits", () => {
  const { stream, terminal } = open();
  terminal.status("[==  ] step 2/4, 2 min left");
  stream.columns = 10;
  stream.emit("resize");
  expect(screenOf(stream.written)).toEqual(["[==  ] st"]);
});

test.each([
  ["a pipe", () => open({ isTTY: false })],
  [
    "TERM=dumb",
    () => {
      const opened = open();
      vi.stubEnv("TERM", "dumb");
      return opened;
    },
  ],
])("%s shows no wait", (_, opened) => {
  const { stream, terminal } = opened();
  terminal.status("[==  ] step 2/4");
  terminal.write("ditrun: a line\n");
  expect([stream.written, terminal.isLive]).toEqual(["ditrun: a line\n", false]);
});
