import { expect, test } from "vitest";
import { soakServe } from "../soak-serve.js";

// test/soak-serve.ts runs a thousand.
test("a server whose rank is killed, and which is killed itself, ends each request in one way and leaves nothing", async () => {
  const { wrong, outcomes } = await soakServe({ requests: 12, seed: 4, kills: 1, nproc: 1 });
  expect(wrong).toEqual([]);
  expect(Object.values(outcomes).reduce((sum, count) => sum + count, 0)).toBe(12);
});
