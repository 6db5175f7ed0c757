import { describe, expect, expectTypeOf, test } from "vitest";
import * as library from "../../src/index.js";
import {
  DitrunError,
  type FailureCode,
  type LaunchEvent,
  type LaunchResult,
  launch,
  loadPlan,
  type Plan,
  type PlanRequest,
} from "../../src/index.js";

test("the library is these names, and no other", () => {
  expect(Object.keys(library).sort()).toEqual([
    "DitrunError",
    "ServerError",
    "createClient",
    "launch",
    "loadPlan",
    "openEngine",
  ]);
});

describe("loadPlan", () => {
  test("reads a plan that ships, with all its defaults", async () => {
    const plan = await loadPlan("cp2-tp2", { nproc: 4, model: "dit-tiny" });
    expect(plan).toMatchObject({ name: "cp2-tp2", mesh: { cfg: 1, cp: 2, tp: 2 }, dtype: "bf16", graph: true });
    expect(await loadPlan("cfg2", { model: "tiny" })).toMatchObject({ mesh: { cfg: 2 } });
  });

  test.each<[string, PlanRequest, FailureCode]>([
    ["cp2", { nproc: 3 }, "ERR_PLAN_MESH"],
    ["cp2", { nproc: 3, model: "dit-tiny" }, "ERR_PLAN_MESH"],
    ["cfg2", { model: "dit-tiny" }, "ERR_PLAN_MESH"],
    ["single-fp16", { model: "tiny" }, "ERR_PLAN_PRECISION"],
    ["nothing", {}, "ERR_DOCUMENT_UNKNOWN"],
    ["cp2", { model: "nothing" }, "ERR_DOCUMENT_UNKNOWN"],
    ["nowhere.yaml", {}, "ERR_FILE_READ"],
  ])("%s for %o is refused with %s", async (plan, request, code) => {
    await expect(loadPlan(plan, request)).rejects.toMatchObject({ name: "DitrunError", code, exitCode: 2 });
  });
});

test("types", () => {
  expectTypeOf(loadPlan).toBeCallableWith("cp2", { nproc: 2, model: "dit" });
  expectTypeOf(loadPlan).returns.resolves.toEqualTypeOf<Plan>();
  expectTypeOf<Plan["mesh"]>().toEqualTypeOf<{ cfg: number; cp: number; tp: number }>();
  expectTypeOf<"ERR_PLAN_MESH">().toExtend<FailureCode>();
  expectTypeOf<"ERR_UNHEARD_OF">().not.toExtend<FailureCode>();
  expectTypeOf<DitrunError>().toExtend<Error>();
  expectTypeOf<DitrunError["code"]>().toEqualTypeOf<FailureCode>();
  expectTypeOf<DitrunError["rank"]>().toEqualTypeOf<number | undefined>();
  expectTypeOf(DitrunError).instance.toHaveProperty("signal").toEqualTypeOf<string | undefined>();
  expectTypeOf(launch).toBeCallableWith({ command: ["true"], nproc: 2 }, { signal: AbortSignal.abort() });
  expectTypeOf(launch).returns.resolves.toEqualTypeOf<LaunchResult>();
  expectTypeOf<Extract<LaunchEvent, { kind: "output" }>["stream"]>().toEqualTypeOf<"stdout" | "stderr">();
  // @ts-expect-error: a command has a program.
  expectTypeOf(launch).toBeCallableWith({ command: [], nproc: 2 });
});
