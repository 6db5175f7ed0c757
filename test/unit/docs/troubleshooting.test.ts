import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { packageRoot } from "../../../src/paths.js";
import { textOf } from "./pages.js";

/** What the program can say: sources of both languages, and its start. */
const said = ["src", "bin", "scripts", "kernels/cuda"]
  .flatMap((folder) =>
    readdirSync(join(packageRoot, folder), { recursive: true, encoding: "utf8" })
      .filter((name) => /\.(?:ts|js|cu)$/.test(name))
      .map((name) => readFileSync(join(packageRoot, folder, name), "utf8")),
  )
  // A C++ text goes on in the next line.
  .map((text) => text.replace(/"\s*\n\s*"/g, ""))
  .join("\n");

/** What stands between the parts of a message that differ. */
const piecesOf = (message: string) =>
  message
    .split("…")
    .map((piece) => piece.trim())
    .filter((piece) => piece !== "");

const messages = [...textOf("docs/troubleshooting.md").matchAll(/^### (.*)$/gm)].flatMap(([, heading = ""]) =>
  [...heading.matchAll(/`([^`]+ [^`]+)`/g)].map(([, message = ""]) => message),
);

test("there are messages to look for", () => {
  expect(messages.length).toBeGreaterThan(12);
});

test.each(messages.filter((message) => !message.startsWith("ditrun ")))("the program can say: %s", (message) => {
  expect(piecesOf(message).filter((piece) => !said.includes(piece))).toEqual([]);
});
