import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { loadModel } from "../../../src/models/load.js";
import { readPlan, resolvePlan } from "../../../src/plan/resolve.js";
import { meshName } from "../../../src/plan/schema.js";
import { writtenPlan } from "../../../src/plan/written.js";

test.each(["cp4×tp2", "cp4xtp2", "cp4-tp2", "cp4tp2", "tp2-cp4", "cp4*tp2", "cp4 tp2", "CP4_TP2"])(
  "%s is the shipped plan cp4-tp2",
  async (text) => {
    expect(await readPlan(text)).toEqual(await readPlan("cp4-tp2"));
    expect((await readPlan(text)).mesh).toEqual({ cfg: 1, cp: 4, tp: 2 });
  },
);

test.each([
  ["cfg2-cp4", { mesh: { cfg: 2, cp: 4, tp: 1 }, dtype: "bf16" }],
  ["cp4×tp2 e4m3", { mesh: { cp: 4, tp: 2 }, linear: { dtype: "e4m3" }, attention: { dtype: "e4m3" } }],
  ["cp3", { name: "cp3", mesh: { cfg: 1, cp: 3, tp: 1 }, dtype: "bf16" }],
  ["cp3-fp8", { name: "cp3-fp8", linear: { dtype: "e4m3" }, attention: { dtype: "e4m3" }, dtype: "bf16" }],
  ["tp2-fp16", { name: "tp2-fp16", attention: { dtype: "fp16" }, dtype: "bf16" }],
  ["single fp32", { name: "single-fp32", mesh: { cfg: 1, cp: 1, tp: 1 }, dtype: "fp32" }],
  ["single-bf16", { name: "single", dtype: "bf16" }],
])("%s is a plan", async (text, plan) => {
  expect(await readPlan(text)).toMatchObject(plan);
});

test.each(["cp", "cp4cp2", "cp0", "cp4-tp2-int8", "x4", "4", "cp4.yaml", "cp2-tp2/fp8", "cp99999"])(
  "%s is none",
  (text) => {
    expect(writtenPlan(text)).toBeUndefined();
  },
);

test("a plan in JSON is read too", async () => {
  const folder = mkdtempSync(join(tmpdir(), "ditrun-json-plan-"));
  writeFileSync(join(folder, "p.json"), JSON.stringify({ mesh: { cp: 2 }, linear: { dtype: "e4m3" } }));
  expect(await readPlan(join(folder, "p.json"))).toMatchObject({ mesh: { cp: 2 }, linear: { dtype: "e4m3" } });
  rmSync(folder, { recursive: true });
});

test("what a table prints is read back as the same mesh and precision", async () => {
  const model = await loadModel("wan-14b");
  for (const flags of [
    { cfg: 2, cp: 4 },
    { tp: 8 },
    { cp: 2, tp: 4, fp8: true },
    {},
    { cp: 2, dtype: "fp32" as const },
  ]) {
    const plan = await resolvePlan(flags, model, undefined, 1);
    const again = await readPlan(plan.name ?? "");
    expect([again.mesh, again.dtype, again.linear]).toEqual([plan.mesh, plan.dtype, plan.linear]);
    expect((await readPlan(meshName(plan.mesh))).mesh).toEqual(plan.mesh);
  }
});
