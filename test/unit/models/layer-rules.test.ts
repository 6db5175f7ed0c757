import { describe, expect, it } from "vitest";
import { matchesPath, splitOf } from "../../../src/models/layer-rules.js";
import { planSchema } from "../../../src/plan/schema.js";

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
