import { expect, test } from "vitest";
import { soak } from "../soak.js";

// test/soak.ts runs hundreds.
test("launches with random faults name the fault and leave nothing", async () => {
  expect(await soak({ launches: 10, seed: 20 })).toEqual([]);
});
