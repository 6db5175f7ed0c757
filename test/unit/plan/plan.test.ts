import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { parameterCount, tokenCount } from "../../../src/models/cost.js";
import { loadCheckpointModel, loadDitModel, loadModel } from "../../../src/models/load.js";
import { modelsDirectory, packageRoot, plansDirectory } from "../../../src/paths.js";
import { describeDtypes, planPrecision } from "../../../src/plan/names.js";
import { resolvePlan, singleDevicePlan, weightBytes } from "../../../src/plan/resolve.js";
import { attentionDtype, meshSize, planSchema, ringDtype } from "../../../src/plan/schema.js";

let folder = "";
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "ditrun-plan-"));
});
afterAll(() => rmSync(folder, { recursive: true }));

function file(text: string): string {
  const path = join(folder, "plan.yaml");
  writeFileSync(path, text);
  return path;
}

const dit = await loadDitModel("dit");
const wan = await loadModel("wan-1.3b");
const names = (directory: string) => readdirSync(directory).map((name) => basename(name, ".yaml"));

describe("the mesh", () => {
  test("8 workers without flags are cp4 × tp2, and 5 are cp5", async () => {
    expect((await resolvePlan({}, dit, 8, 1)).mesh).toEqual({ cfg: 1, cp: 4, tp: 2 });
    expect((await resolvePlan({}, dit, undefined, 5)).mesh).toEqual({ cfg: 1, cp: 5, tp: 1 });
    expect((await resolvePlan({}, { ...dit, heads: 1 }, 4, 1)).mesh).toEqual({ cfg: 1, cp: 4, tp: 1 });
  });

  test("Wan's 8 workers without flags are cfg2 × cp4, and 3 are cp3", async () => {
    expect((await resolvePlan({}, wan, 8, 1)).mesh).toEqual({ cfg: 2, cp: 4, tp: 1 });
    expect((await resolvePlan({}, wan, undefined, 3)).mesh).toEqual({ cfg: 1, cp: 3, tp: 1 });
  });

  test("one degree alone is the whole mesh, however many GPUs there are", async () => {
    expect((await resolvePlan({ tp: 4 }, dit, undefined, 8)).mesh).toEqual({ cfg: 1, cp: 1, tp: 4 });
    expect((await resolvePlan({ cp: 3 }, dit, undefined, 8)).mesh).toEqual({ cfg: 1, cp: 3, tp: 1 });
    expect((await resolvePlan({ cfg: 2 }, wan, undefined, 8)).mesh).toEqual({ cfg: 2, cp: 1, tp: 1 });
  });

  test("flags override the plan's file, and the rest of the file stays", async () => {
    const plan = await resolvePlan({ plan: "cp4-tp2-fp8", tp: 4, dtype: "fp32" }, dit, undefined, 1);
    expect(plan).toMatchObject({ mesh: { cfg: 1, cp: 4, tp: 4 }, dtype: "fp32", linear: { dtype: "e4m3" } });
    expect(plan.name).toBe("cp4×tp4 e4m3");
  });

  test("a plan alone says how many workers there are, and keeps its name", async () => {
    const plan = await resolvePlan({ plan: "cp2-tp4" }, dit, undefined, 3);
    expect(meshSize(plan.mesh)).toBe(8);
    expect(plan.name).toBe("cp2-tp4");
  });

  test("--fp8 means everything: linear layers, self-attention and its ring", async () => {
    const plan = await resolvePlan({ fp8: true, cp: 2 }, dit, 2, 1);
    expect([plan.linear.dtype, plan.attention.dtype, plan.ring.dtype]).toEqual(["e4m3", "e4m3", "e4m3"]);
    expect(planPrecision(plan)).toBe("e4m3");
    const single = singleDevicePlan(plan);
    expect(single).toMatchObject({ mesh: { cfg: 1, cp: 1, tp: 1 }, linear: { dtype: "e4m3" } });
    expect([plan, single].map(describeDtypes)).toEqual([
      "bf16, e4m3 linear + attention + ring",
      "bf16, e4m3 linear + attention",
    ]);
  });
});

test("--attention says what attention and its ring are in, beside --fp8 and over a plan", async () => {
  const alone = await resolvePlan({ attention: "fp16", cp: 2 }, dit, undefined, 1);
  expect(describeDtypes(alone)).toBe("bf16, fp16 attention + ring");
  const beside = await resolvePlan({ plan: "cp4-tp2", fp8: true, attention: "fp16" }, dit, undefined, 1);
  expect(describeDtypes(beside)).toBe("bf16, e4m3 linear, fp16 attention + ring");
  const over = await resolvePlan({ plan: "cp4-tp2-fp8", attention: "bf16" }, dit, undefined, 1);
  expect(describeDtypes(over)).toBe("bf16, e4m3 linear");
  expect([over.attention.dtype, over.ring.dtype]).toEqual(["bf16", undefined]);
  await expect(resolvePlan({ attention: "fp16" }, wan, 1, 1)).rejects.toThrow("which only the DiT has");
  await expect(resolvePlan({ attention: "fp16", dtype: "fp32" }, dit, 1, 1)).rejects.toThrow(
    "attention.dtype fp16 and dtype fp32",
  );
});

test("--no-fp8 takes e4m3 out of a plan that has it", async () => {
  const plan = await resolvePlan({ plan: "cp4-tp2-fp8", fp8: false }, dit, undefined, 1);
  expect([plan.linear.dtype, plan.attention.dtype, plan.ring.dtype]).toEqual([undefined, undefined, undefined]);
  expect(plan.name).toBe("cp4×tp2 bf16");
});

describe("dtypes of attention and its ring", () => {
  const resolve = (text: string, flags = {}) => resolvePlan({ plan: file(text), ...flags }, dit, undefined, 1);

  test.each([
    ["attention: { dtype: e4m3 }", "e4m3", "e4m3", "bf16, e4m3 attention + ring"],
    ["attention: { dtype: e4m3 }\nring: { dtype: e4m3 }\ndtype: fp32", "e4m3", "e4m3", "fp32, e4m3 attention + ring"],
    ["linear: { dtype: e4m3 }", "bf16", "bf16", "bf16, e4m3 linear"],
    ["attention: { dtype: fp16 }", "fp16", "fp16", "bf16, fp16 attention + ring"],
    [
      "attention: { dtype: fp16 }\nring: { dtype: fp16 }\nlinear: { dtype: e4m3 }",
      ...["fp16", "fp16", "bf16, e4m3 linear, fp16 attention + ring"],
    ],
    ["ring: { dtype: bf16 }\nattention: { kernel: sm80 }", "bf16", "bf16", "bf16"],
  ])("%j", async (text, attention, ring, description) => {
    const plan = await resolve(`mesh: { cp: 2 }\n${text}`);
    expect([attentionDtype(plan), ringDtype(plan), describeDtypes(plan)]).toEqual([attention, ring, description]);
  });

  test.each([
    [
      "ring: { dtype: e4m3 }",
      {},
      "Plan plan has ring.dtype e4m3 and attention.dtype bf16, but keys and values travel as attention reads them: leave ring.dtype out, or make attention.dtype e4m3 too.",
    ],
    [
      "attention: { dtype: e4m3 }\nring: { dtype: bf16 }",
      {},
      "ring.dtype bf16 and attention.dtype e4m3, but keys and values travel as attention reads them: leave ring.dtype out, or make attention.dtype bf16 too.",
    ],
    [
      "ring: { dtype: fp32 }",
      {},
      "ring.dtype fp32 and attention.dtype bf16, but keys and values travel as attention reads them: leave ring.dtype out.",
    ],
    [
      "attention: { dtype: fp32 }",
      {},
      "attention.dtype fp32 and dtype bf16: leave attention.dtype out, or make it fp16 or e4m3.",
    ],
    ["attention: { dtype: bf16 }", { dtype: "fp32" }, "attention.dtype bf16 and dtype fp32: leave attention.dtype out"],
    [
      "attention: { dtype: e4m3, kernel: sm80 }",
      {},
      "attention.dtype e4m3, which the attention.kernel sm80 does not have: choose auto, generic or sm90.",
    ],
    [
      "attention: { dtype: fp16 }",
      { dtype: "fp32" },
      "attention.dtype fp16 and dtype fp32: leave attention.dtype out, or make it e4m3.",
    ],
    [
      "attention: { dtype: fp16, kernel: sm80 }",
      {},
      "attention.dtype fp16, which the attention.kernel sm80 does not have: choose auto, generic or sm90.",
    ],
    [
      "ring: { dtype: fp16 }",
      {},
      "ring.dtype fp16 and attention.dtype bf16, but keys and values travel as attention reads them: leave ring.dtype out, or make attention.dtype fp16 too.",
    ],
    ["attention: { kernel: sm80 }", { fp8: true }, "which the attention.kernel sm80 does not have"],
  ])("%j with %j is refused", async (text, flags, message) => {
    await expect(resolve(`mesh: { cp: 2 }\n${text}`, flags)).rejects.toThrow(message);
  });
});

describe("what does not fit is refused with its numbers", () => {
  test.each([
    [{ cp: 4, tp: 2 }, 4, "The mesh cfg 1 × cp 4 × tp 2 needs 8 workers, but --nproc is 4"],
    [{ tp: 3 }, 3, "The 16 heads of dit cannot be shared by tp 3"],
    [{ cfg: 2 }, 2, "so cfg must be 1, but it is 2"],
    [{ plan: "nowhere" }, undefined, 'There is no plan named "nowhere": choose one of cfg2, '],
    [{ plan: "./missing.yaml" }, undefined, "missing.yaml could not be read"],
  ])("%j with --nproc %s", async (flags, nproc, message) => {
    await expect(resolvePlan(flags, dit, nproc, 1)).rejects.toThrow(message);
  });

  test("more workers in a ring over peer copies than attention walks over", async () => {
    const plan = (transport: string) => file(`ring: { transport: ${transport} }`);
    await expect(resolvePlan({ plan: plan("peer"), cp: 17 }, dit, undefined, 1)).rejects.toThrow(
      "cp is 17, but over peer copies attention walks over the keys of at most 16 workers",
    );
    // The choice is left: such a ring goes over NCCL.
    for (const transport of ["auto", "nccl"]) {
      expect((await resolvePlan({ plan: plan(transport), cp: 17 }, dit, undefined, 1)).mesh.cp).toBe(17);
    }
  });

  test("more workers in a sum or a gather over peer copies than these can have", async () => {
    const wide = { ...dit, width: 64 * 64, heads: 64 };
    const said = "but over peer copies at most 32 workers add up or gather: choose fewer, or ring.transport auto";
    const plan = file("ring: { transport: peer }");
    await expect(resolvePlan({ plan, tp: 64 }, wide, undefined, 1)).rejects.toThrow(`tp is 64, ${said}`);
    await expect(resolvePlan({ plan, cfg: 2, cp: 12, tp: 2 }, wan, undefined, 1)).rejects.toThrow(
      `The mesh has 48, ${said}`,
    );
    expect((await resolvePlan({ plan, tp: 32 }, wide, undefined, 1)).mesh.tp).toBe(32);
    expect((await resolvePlan({ tp: 64 }, wide, undefined, 1)).mesh.tp).toBe(64);
  });

  test("outputs of a column-split layer that tp does not divide", async () => {
    const plan = file("embeddings: { tensorParallel: true }");
    const odd = { ...dit, imageSize: 15, channels: 1, patch: 3 };
    await expect(resolvePlan({ plan, tp: 2 }, odd, undefined, 1)).rejects.toThrow(
      "The 9 outputs of head of dit cannot be shared by tp 2: choose a tp that divides 9",
    );
  });

  test("guidance.together without guidance, or with several workers", async () => {
    const plan = file("guidance: { together: true }");
    await expect(resolvePlan({ plan }, dit, 1, 1)).rejects.toThrow("guidance.together, but dit has no guidance");
    await expect(resolvePlan({ plan, cp: 2 }, wan, 2, 1)).rejects.toThrow("needs one worker");
    expect((await resolvePlan({ plan }, wan, 1, 1)).guidance.together).toBe(true);
  });

  test("fewer tokens than workers that share them", async () => {
    const small = { ...dit, imageSize: 16 };
    await expect(resolvePlan({ cp: 5 }, small, 5, 1)).rejects.toThrow(
      "dit has 4 tokens here, fewer than the 5 workers",
    );
    // Norms share the tokens over tp, too.
    const mesh = { cp: 2, tp: 4 };
    await resolvePlan(mesh, small, 8, 1);
    const plan = file("norms: { sequenceParallel: true }");
    await expect(resolvePlan({ plan, ...mesh }, small, 8, 1)).rejects.toThrow("fewer than the 8 workers");
  });

  test.each([
    [
      "mesh: { cp: 2 }\nmehs: {}",
      "mehs is not a known key (did you mean mesh?); allowed here: name, mesh, dtype, attention, ring",
    ],
    ["mesh: { pp: 2 }", "mesh.pp is not a known key; allowed here: cfg, cp, tp"],
    ["mesh: { cp: two }", 'mesh.cp is "two"; it must be a number'],
    ["mesh: { cp: 0 }", "mesh.cp is 0; it must be at least 1"],
    ["mesh: { cp: 1.5 }", "mesh.cp is 1.5; it must be a whole number"],
    ["dtype: fp16", 'dtype is "fp16"; it must be one of fp32, bf16'],
    ['name: "a\\nb"', 'name is "a\\nb"; it must be one line of text without control characters'],
    ["ring: { transport: mpi }", 'ring.transport is "mpi"; it must be one of auto, peer, nccl'],
    ["graph: 1", "graph is 1; it must be true or false"],
    ["mesh: 3", "mesh is 3; it must be a mapping of keys to values"],
    [
      "layers:\n  - { path: blocks.*.attn.qkv }",
      "layers[0].split is missing; it must be one of heads, column, row, replicated",
    ],
    ["- cp", 'the document is ["cp"]; it must be a mapping'],
    ["mesh: { cp: 2", "is not valid YAML"],
    ["mesh: {}\nmesh: {}", "line 2, column 1 is not valid YAML: Map keys must be unique"],
    ["mesh: {}\n---\nmesh: {}", "is not valid YAML: it holds more than one document."],
    ["mesh: *other", "is not valid YAML: Unresolved alias"],
    [
      `a: &a [x]\n${"bcdef".replace(/./g, (key) => `${key}: &${key} [${"*a,".repeat(99)}]\n`)}`,
      "Excessive alias count",
    ],
    ["mesh: !size { cp: 2 }", "is not valid YAML: Unresolved tag: !size"],
    ["mesh: { cp: .inf }", "mesh.cp is Infinity; it must be"],
    ["# nothing but this", "is empty; it must be a mapping of keys to values"],
    [`name: [${"long, ".repeat(1000)}]`, " …; it must be a text"],
  ])("%j", async (text, message) => {
    const plan = file(text);
    const failure = await resolvePlan({ plan }, dit, undefined, 1).then(String, String);
    expect(failure).toContain(message);
    expect(failure).toContain(plan);
    expect(failure).not.toContain("\n");
  });

  test.each([
    ["longer than any plan", `a: ${"x".repeat(2 ** 16)}`, "could not be read: it is longer than 64 KiB"],
    ["nested without end", "[".repeat(2 ** 16 - 1), "is not valid YAML"],
    ["control characters", `"\u001b[2J": 1`, "\\u001b[2J is not a known key"],
  ])("a document with %s", async (_, text, message) => {
    const failure = await resolvePlan({ plan: file(text) }, dit, undefined, 1).then(String, String);
    expect(failure).toContain(message);
    expect(failure).not.toContain("\u001b");
  });
});

describe("layer rules", () => {
  const rules = (...layers: string[]) =>
    file(`mesh: { tp: 2 }\nlayers:\n${layers.map((rule) => `  - ${rule}`).join("\n")}`);

  test("both layers of a pair may be replicated", async () => {
    const plan = rules("{ path: blocks.*.mlp.0, split: replicated }", "{ path: blocks.*.mlp.2, split: replicated }");
    expect((await resolvePlan({ plan }, dit, undefined, 1)).layers).toHaveLength(2);
  });

  test.each([
    [
      "{ path: blocks.*.attn.qvk, split: heads }",
      'is "blocks.*.attn.qvk", which matches no layer of dit; its layers are blocks.*.attn.qkv',
    ],
    ["{ path: blocks.28.mlp.0, split: column }", "matches no layer of dit"],
    ["{ path: blocks.0.attn.qkv, split: row }", "is row for blocks.0.attn.qkv; it must be one of heads, replicated"],
    ["{ path: blocks.3.mlp.0, split: replicated }", "splits blocks.3.mlp.0 as replicated and blocks.3.mlp.2 as row"],
  ])("%s is refused", async (rule, message) => {
    await expect(resolvePlan({ plan: rules(rule) }, dit, undefined, 1)).rejects.toThrow(message);
  });
});

describe("the files that come with the package", () => {
  test.each(names(plansDirectory))("plan %s is valid and fills the mesh that its name says", async (name) => {
    const plan = await resolvePlan({ plan: name }, name.startsWith("cfg") ? wan : dit, undefined, 1);
    const degree = (axis: string) => Number(name.match(`${axis}(\\d+)`)?.[1] ?? 1);
    expect(plan.mesh).toEqual({ cfg: degree("cfg"), cp: degree("cp"), tp: degree("tp") });
    expect(planPrecision(plan)).toBe(name.endsWith("fp8") ? "e4m3" : "bf16");
  });

  test("there are plans for 1, 2, 4 and 8 workers", async () => {
    const ofDit = names(plansDirectory).filter((name) => !name.startsWith("cfg"));
    const plans = await Promise.all(ofDit.map((plan) => resolvePlan({ plan }, dit, undefined, 1)));
    expect(new Set(plans.map(({ mesh }) => meshSize(mesh)))).toEqual(new Set([1, 2, 4, 8]));
  });

  test.each(names(modelsDirectory))("model %s is valid and named as its file", async (name) => {
    expect((await loadModel(name)).name).toBe(name);
  });

  test.each([
    [
      "kind: dit\nimageSize: 64\nchannels: 4\npatch: 8\nwidth: 30\ndepth: 1\nheads: 3\nclasses: 1",
      "not a multiple of 4",
    ],
    [
      "kind: dit\nimageSize: 64\nchannels: 4\npatch: 8\nwidth: 520\ndepth: 1\nheads: 2\nclasses: 1",
      "makes heads of 260",
    ],
    [
      "kind: dit\nimageSize: 64\nchannels: 4\npatch: 8\nwidth: 64\ndepth: 99999999\nheads: 2\nclasses: 1",
      "at most 10000",
    ],
    [
      "kind: wan\nwidth: 9\nffn: 8\nheads: 1\nlayers: 1\nchannels: 16\npatch: 2\nfreqDim: 4\ntextLength: 8\nepsilon: 1e-6",
      "heads of 9 are not even and at least 6",
    ],
  ])("a model that no kernel computes is refused: %j", async (text, message) => {
    await expect(loadModel(file(`${text}\nname: odd`))).rejects.toThrow(message);
  });

  test("the plan of docs/plans.md is one", async () => {
    const [, plan] = readFileSync(join(packageRoot, "docs/plans.md"), "utf8").match(/^```yaml\n(.*?)^```/ms) ?? [];
    expect((await resolvePlan({ plan: file(plan ?? "") }, dit, 8, 1)).mesh).toEqual({ cfg: 1, cp: 4, tp: 2 });
  });

  test("the benchmark has 65,536 tokens", () => {
    expect(tokenCount(dit)).toBe(65_536);
  });
});

test("the parameters of a model are counted as its checkpoint stores them", () => {
  // Two blocks' worth counted by hand: d 4, patch 1 of 1 channel, 1 class.
  const model = { ...dit, imageSize: 1, channels: 1, patch: 1, width: 4, depth: 2, heads: 1, classes: 1 };
  const block = 12 * 4 + 12 + 4 * 4 + 4 + 16 * 4 + 16 + 4 * 16 + 4 + 4 * 4;
  const rest = 4 + 4 + 2 * (16 + 4) + 2 * 4 + 8 + 4 + 1;
  expect(parameterCount(model)).toBe(2 * block + rest);
});

test("a rank holds its share of the split layers, and embeddings and norms whole", () => {
  const matrices = 28 * 12 * 512 * 512;
  // The biases of qkv and mlp.0 go with their columns.
  const split = matrices + 28 * 7 * 512;
  const plan = planSchema.parse({ dtype: "fp32", mesh: { tp: 4 } });
  expect(weightBytes(dit, plan)).toBe(4 * (parameterCount(dit) - split + split / 4));
  const fp8 = planSchema.parse({ dtype: "fp32", linear: { dtype: "e4m3" } });
  expect(weightBytes(dit, fp8)).toBe(4 * parameterCount(dit) - 3 * (matrices + 512 * 256));
});

test("a checkpoint's config.json gives the model", async () => {
  writeFileSync(
    join(folder, "config.json"),
    JSON.stringify({ img_size: 128, patch_size: 8, in_c: 4, d: 128, depth: 3, heads: 4, n_cls: 10 }),
  );
  expect(await loadCheckpointModel(folder)).toMatchObject({
    imageSize: 128,
    width: 128,
    depth: 3,
    heads: 4,
    classes: 10,
  });
  writeFileSync(join(folder, "config.json"), JSON.stringify({ img_size: 128 }));
  await expect(loadCheckpointModel(folder)).rejects.toThrow("patch_size is missing; it must be a number");
});

test("the defaults of a plan are its schema's", async () => {
  const { name: _name, ...plan } = await resolvePlan({ plan: file("{}") }, dit, undefined, 1);
  expect(plan).toEqual(planSchema.parse({}));
});
