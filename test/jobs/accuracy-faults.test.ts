import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { toFloat32 } from "../../src/formats/numbers.js";
import { openSafetensors } from "../../src/formats/safetensors.js";
import { loadModel } from "../../src/models/load.js";
import type { Model } from "../../src/models/schema.js";
import { type PlanDocument, planSchema } from "../../src/plan/schema.js";
import { type AccuracyResult, compareOutputs } from "../../src/views/accuracy-report.js";
import { goldenModel } from "../unit/worker/wan/golden.js";
import { breakBuild, type Fault, runSeries, type SeriesTask } from "./broken-build.js";

// What `ditrun accuracy` is for: right plans pass with room, and one broken part fails, in every dtype and layout that has it. By
// default a few of each; DITRUN_ALL_FAULTS=1 runs all of them (bench/NOTES.md, "What accuracy sees", has what they gave).
const all = process.env.DITRUN_ALL_FAULTS === "1";

const dtypes = {
  fp32: { dtype: "fp32" },
  bf16: { dtype: "bf16" },
  fp16: { dtype: "bf16", attention: { dtype: "fp16" } },
  fp8: { dtype: "bf16", attention: { dtype: "e4m3" }, linear: { dtype: "e4m3" } },
} as const satisfies Record<string, PlanDocument>;
type Dtype = keyof typeof dtypes;
const meshes = { cp2: { cp: 2 }, tp2: { tp: 2 }, "cp4×tp2": { cp: 4, tp: 2 } } as const;
type Mesh = keyof typeof meshes;
const meshNames = ["cp2", "tp2", "cp4×tp2"] as const;
const dtypeNames = ["fp32", "bf16", "fp16", "fp8"] as const;

/** Which layouts and dtypes have the part that a fault breaks. */
function has(fault: Fault, mesh: Mesh, dtype: Dtype): boolean {
  const [cp, tp, e4m3] = [mesh !== "tp2", mesh !== "cp2", dtype === "fp8"];
  switch (fault) {
    case "none":
    case "dropped bias":
    case "wrong scale of scores":
      return true;
    case "dead ring":
    case "dead ring on one rank":
      return cp;
    case "wrong smoothing mean":
    case "own statistics":
      return cp && e4m3;
    case "wrong scale of weights":
      return tp && e4m3;
  }
}

const everyFault: readonly Fault[] = [
  ...(["none", "dead ring", "dead ring on one rank", "dropped bias", "wrong smoothing mean"] as const),
  ...(["own statistics", "wrong scale of scores", "wrong scale of weights"] as const),
];
type Chosen = Readonly<Record<Mesh, readonly (readonly [Dtype, readonly Fault[]])[]>>;
/** What is looked at by default: each fault somewhere in fp8, where rounding hides most, and each dtype with some fault. */
const chosen: Readonly<Record<"dit" | "wan", Chosen>> = {
  dit: {
    cp2: [
      ["fp8", ["none", "dead ring", "wrong smoothing mean", "wrong scale of scores"]],
      ["bf16", ["none", "dead ring on one rank"]],
    ],
    tp2: [
      ["fp8", ["none", "dropped bias", "wrong scale of weights"]],
      ["fp16", ["none", "dropped bias"]],
    ],
    "cp4×tp2": [
      ["fp8", ["none", "dead ring on one rank"]],
      ["fp32", ["none"]],
    ],
  },
  wan: {
    cp2: [["fp8", ["none", "dead ring", "wrong scale of scores"]]],
    tp2: [["fp8", ["none", "dropped bias"]]],
    "cp4×tp2": [],
  },
};
const everything = dtypeNames.map((dtype) => [dtype, everyFault] as const);

/** fp16 attention is the DiT's only. */
const dtypesOf = ({ kind }: Model): readonly Dtype[] =>
  dtypeNames.filter((dtype) => kind === "dit" || dtype !== "fp16");

let folder = "";
let entry = "";
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "ditrun-faults-"));
  entry = breakBuild(folder);
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

async function readOutput(path: string) {
  const file = await openSafetensors(path);
  try {
    const { dtype, shape } = file.info("output");
    return { shape, data: toFloat32(dtype, await file.read("output")) };
  } finally {
    await file.close();
  }
}

function taskOf(model: Model, document: PlanDocument, output: string): SeriesTask {
  const plan = { ...planSchema.parse(document), name: "some" };
  if (model.kind === "wan") {
    return { kind: "wan-accuracy", model, plan, size: { frames: 5, height: 16, width: 24 }, seed: 0, output };
  }
  return { kind: "forward", model, plan, weights: { from: "random", seed: 0, wide: true }, seed: 0, output };
}

describe.each([
  ["dit-tiny", "dit-tiny"],
  ["wan-golden", goldenModel],
])("accuracy of %s", { timeout: 120_000 }, (name, described) => {
  let model: Model;
  const alone = (dtype: Dtype) => join(folder, `${name}-${dtype}.safetensors`);

  beforeAll(async () => {
    model = await loadModel(described);
    const used = new Set(Object.values(chosen[model.kind]).flatMap((cases) => cases.map(([dtype]) => dtype)));
    const items = dtypesOf(model).flatMap((dtype) => {
      if (!all && !used.has(dtype)) return [];
      return [{ fault: "none", task: taskOf(model, dtypes[dtype], alone(dtype)) } as const];
    });
    await runSeries(entry, folder, items);
  });

  it.for(meshNames)("%s: what is right passes, what is broken fails", { timeout: 600_000 }, async (mesh, context) => {
    const cases = (all ? everything : chosen[model.kind][mesh]).flatMap(([dtype, faults]) =>
      (dtypesOf(model).includes(dtype) ? faults : [])
        .filter((fault) => has(fault, mesh, dtype))
        .map((fault) => ({ dtype, fault })),
    );
    if (cases.length === 0) return context.skip();
    const file = (index: number) => join(folder, `${name}-${mesh}-${index}.safetensors`);
    const documents = cases.map(({ dtype }) => ({ ...dtypes[dtype], mesh: meshes[mesh] }));
    const items = cases.map(({ fault }, index) => ({
      fault,
      task: taskOf(model, documents[index] ?? {}, file(index)),
    }));
    await runSeries(entry, folder, items);
    for (const [index, { dtype, fault }] of cases.entries()) {
      const { plan } = taskOf(model, documents[index] ?? {}, "");
      const result = compareOutputs(
        model,
        plan,
        "layout",
        await readOutput(file(index)),
        await readOutput(alone(dtype)),
      );
      const what = `${name} ${mesh} ${dtype} ${fault}: ${shown(result)}`;
      if (all) process.stdout.write(`${what}\n`);
      expect(result.pass, what).toBe(fault === "none");
    }
  });
});

function shown({ measures, limits }: AccuracyResult): string {
  if (!measures) return "not finite";
  return (["relL2", "region", "token"] as const)
    .map((key) => `${key} ${measures[key].toExponential(1)} of ${limits[key].toExponential(1)}`)
    .join(", ");
}
