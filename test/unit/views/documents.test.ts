import { describe, expect, test } from "vitest";
import { z } from "zod";
import { documentSchemas } from "../../../src/views/documents.js";

const published = Object.entries(documentSchemas);

// `npx vitest run test/unit/views/documents.test.ts -u` writes them.
test.each(published)("docs/schema/%s.json is what is written", async (name, schema) => {
  const text = JSON.stringify(z.toJSONSchema(schema, { unrepresentable: "any" }), null, 2);
  await expect(`${text}\n`).toMatchFileSnapshot(`../../../docs/schema/${name}.json`);
});

describe("a document", () => {
  const error = {
    ...{ schemaVersion: 1, ditrun: { version: "0.1.0", commit: null }, commandLine: ["ditrun"], host: "a" },
    ...{ startedAt: "2026-11-29T11:00:00.000Z", error: { message: "m", code: "ERR_NPROC", exitCode: 2 } },
  };
  test("may not have a key that is not published", () => {
    expect(documentSchemas.error.safeParse(error).success).toBe(true);
    expect(documentSchemas.error.safeParse({ ...error, more: 1 }).success).toBe(false);
  });
});
