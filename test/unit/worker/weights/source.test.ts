import { describe, expect, it } from "vitest";
import { tensorId } from "../../../../src/worker/weights/source.js";

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
