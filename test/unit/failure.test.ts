import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { DitrunError, isPassing, PeerFailure } from "../../src/failure.js";
import { failureCodes } from "../../src/failure-codes.js";
import { failureCodeSchema } from "../../src/protocol/failure-code.js";

test("docs/errors.md lists every code once, with its exit code and meaning, and no other", () => {
  const text = readFileSync(new URL("../../docs/errors.md", import.meta.url), "utf8");
  const rows = text.split("\n").filter((line) => line.startsWith("| `ERR_"));
  expect(rows).toEqual(
    Object.entries(failureCodes).map(([code, { exitCode, meaning }]) => `| \`${code}\` | ${exitCode} | ${meaning} |`),
  );
});

test("a meaning is one or two short sentences", () => {
  for (const [code, { meaning }] of Object.entries(failureCodes)) {
    const sentences = meaning.split(/(?<=\.) /);
    expect(sentences.length, code).toBeLessThanOrEqual(2);
    for (const sentence of sentences) {
      expect(sentence, code).toMatch(/^[A-Z].*\.$/);
      expect(sentence.split(" ").length, code).toBeLessThanOrEqual(20);
    }
  }
});

test("an error has the exit code of its kind, unless the process has one of its own", () => {
  expect(new DitrunError("ERR_PLAN_MESH", "No.")).toMatchObject({ code: "ERR_PLAN_MESH", exitCode: 2, message: "No." });
  const details = { exitCode: 137, rank: 2, host: "node7", signal: "SIGKILL", cause: "why" };
  expect(new DitrunError("ERR_RANK_SIGNAL", "Gone.", details)).toMatchObject(details);
  expect(new PeerFailure("Lost.")).toMatchObject({ code: "ERR_PEER_LOST", exitCode: 4 });
});

test("only a code of the table is taken from another process", () => {
  expect(failureCodeSchema.safeParse("ERR_PLAN_MESH").success).toBe(true);
  for (const other of ["ERR_NONE", "toString", 4]) expect(failureCodeSchema.safeParse(other).success).toBe(false);
});

test("only what ended a rank may not come again", () => {
  const passing = Object.entries(failureCodes).flatMap(([code, kind]) => (kind.passing ? [code] : []));
  expect(passing).toEqual(["ERR_RANK_FAILED", "ERR_RANK_SIGNAL", "ERR_RANK_SILENT"]);
  expect(isPassing(new DitrunError("ERR_RANK_FAILED", "It ended.", { exitCode: 9 }))).toBe(true);
  for (const other of [new DitrunError("ERR_RANK_NOT_STARTED", "No."), new PeerFailure("Lost."), new Error("x"), "x"])
    expect(isPassing(other)).toBe(false);
});
