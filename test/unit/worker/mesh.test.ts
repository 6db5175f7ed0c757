import { describe, expect, it } from "vitest";
import { matchesPath, splitOf } from "../../../src/models/layer-rules.js";
import { planSchema } from "../../../src/plan/schema.js";
import { axes, ranksAlong } from "../../../src/worker/comm/context.js";
import { rangeOf, shares } from "../../../src/worker/layers/split.js";
import { Arena, alignUp } from "../../../src/worker/runtime/arena.js";
import { tensorId } from "../../../src/worker/weights/source.js";

describe("the mesh", () => {
  const mesh = { cfg: 2, cp: 3, tp: 2 };

  it("puts tp ranks side by side, then cp, then cfg", () => {
    expect(ranksAlong("tp", mesh, 9)).toEqual([8, 9]);
    expect(ranksAlong("cp", mesh, 9)).toEqual([7, 9, 11]);
    expect(ranksAlong("cfg", mesh, 9)).toEqual([3, 9]);
    expect(ranksAlong("world", mesh, 9)).toHaveLength(12);
  });

  it("gives every rank of a group the same group, with itself in it", () => {
    for (const axis of axes) {
      for (let rank = 0; rank < 12; rank++) {
        const group = ranksAlong(axis, mesh, rank);
        expect(group).toContain(rank);
        for (const peer of group) expect(ranksAlong(axis, mesh, peer)).toEqual(group);
      }
    }
  });
});

describe("shares", () => {
  it("adds up, in blocks that differ by one at most", () => {
    for (const [total, ranks] of [
      [256, 3],
      [256, 5],
      [7, 7],
      [1000, 8],
      [65536, 6],
    ] as const) {
      const parts = shares(total, ranks);
      expect(parts.reduce((sum, part) => sum + part, 0)).toBe(total);
      expect(Math.max(...parts) - Math.min(...parts)).toBeLessThanOrEqual(1);
      const last = rangeOf(parts, ranks - 1);
      expect(last.start + last.count).toBe(total);
    }
  });
});

describe("layer rules", () => {
  it("match one segment per star", () => {
    expect(matchesPath("blocks.*.attn.qkv", "blocks.12.attn.qkv")).toBe(true);
    expect(matchesPath("blocks.*.qkv", "blocks.12.attn.qkv")).toBe(false);
    expect(matchesPath("head", "head")).toBe(true);
  });

  it("let the plan win over the model, and later rules over earlier ones", () => {
    const defaults = [{ path: "blocks.*.mlp.0", split: "column" }] as const;
    const plan = planSchema.parse({
      layers: [
        { path: "blocks.*.mlp.0", split: "replicated" },
        { path: "blocks.1.mlp.0", split: "column" },
      ],
    });
    expect(splitOf(planSchema.parse({}), defaults, "blocks.0.mlp.0")).toBe("column");
    expect(splitOf(plan, defaults, "blocks.0.mlp.0")).toBe("replicated");
    expect(splitOf(plan, defaults, "blocks.1.mlp.0")).toBe("column");
    expect(splitOf(plan, defaults, "head")).toBe("replicated");
    expect(splitOf(planSchema.parse({ embeddings: { tensorParallel: true } }), defaults, "head")).toBe("column");
  });
});

describe("Arena", () => {
  it("measures, then returns the same addresses for the same calls", () => {
    const arena = new Arena();
    const walk = () =>
      arena.scope(() => [arena.allocate(10), arena.scope(() => arena.allocate(5000)), arena.allocate(1)]);
    walk();
    expect(arena.peak).toBe(alignUp(10) + alignUp(5000));
    arena.back(1 << 20, arena.peak);
    const first = walk();
    expect(first[0]).toBe(1 << 20);
    expect(first[1]).toBe(first[2]);
    expect(walk()).toEqual(first);
  });

  it("refuses more than it measured", () => {
    const arena = new Arena();
    arena.scope(() => arena.allocate(100));
    arena.back(4096, arena.peak);
    arena.allocate(100);
    expect(() => arena.allocate(1)).toThrow(/asked for 2048 bytes/);
  });
});

describe("tensorId", () => {
  it("differs for every parameter of the default DiT", () => {
    const names = Array.from({ length: 28 }, (_, block) =>
      ["attn.qkv", "attn.proj", "mlp.0", "mlp.2", "n1", "n2"].flatMap((layer) =>
        ["weight", "bias"].map((p) => `blocks.${block}.${layer}.${p}`),
      ),
    ).flat();
    expect(new Set(names.map(tensorId)).size).toBe(names.length);
  });
});
