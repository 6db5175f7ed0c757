import { expect, test } from "vitest";
import { loadDitModel } from "../../../src/models/load.js";
import { planSchema } from "../../../src/plan/schema.js";
import { accuracyTable, compareOutputs, layersTable, withLayers } from "../../../src/views/accuracy-report.js";
import { accuracyPage } from "../../../src/views/html/accuracy-page.js";
import { lineChart } from "../../../src/views/html/line-chart.js";
import { firstApart, layerErrors } from "../../../src/views/layer-errors.js";
import { plainPage } from "../../../src/views/page.js";
import { made } from "./traced-job.js";

const layer = (place: number, name: string, ...values: number[]) => ({
  name: `layer.00${place}.cond.${name}`,
  data: Float32Array.from(values),
});
const right = [layer(0, "patch_embedding", 3, 4), layer(1, "block.0.ffn", 3, 4), layer(2, "block.1.ffn", 3, 4)];
const wrong = [layer(0, "patch_embedding", 3, 4), layer(1, "block.0.ffn", 3, 4.5), layer(2, "block.1.ffn", 3, 9)];

test("errors are relative to what is expected, layer by layer, and the first above the limit is named", () => {
  const errors = layerErrors(wrong, right);
  expect(errors).toEqual([
    { layer: "patch_embedding", slot: "cond", relL2: 0 },
    { layer: "block.0.ffn", slot: "cond", relL2: 0.1 },
    { layer: "block.1.ffn", slot: "cond", relL2: 1 },
  ]);
  expect([firstApart(errors, 0.01)?.layer, firstApart(errors, 0.5)?.layer, firstApart(errors, 2)]).toEqual([
    ...["block.0.ffn", "block.1.ffn", undefined],
  ]);
  const broken = layerErrors([layer(0, "block.0.ffn", Number.NaN, 1)], [layer(0, "block.0.ffn", 1, 1)]);
  expect(firstApart(broken, 1e9)).toMatchObject({ layer: "block.0.ffn", relL2: null });
  expect(() => layerErrors(wrong, right.slice(1))).toThrow("no layer layer.000.cond.patch_embedding in common");
});

test("a plan's table and page name the layer where it parts", async () => {
  const model = { ...(await loadDitModel("dit")), imageSize: 8, channels: 1, patch: 1 };
  const plan = { ...planSchema.parse({ mesh: { cp: 2 } }), name: "cp2" };
  const output = { shape: [1, 1, 8, 8], data: new Float32Array(64).fill(1) };
  const result = withLayers(compareOutputs(model, plan, "layout", output, output), wrong, right);
  expect(result).toMatchObject({ pass: true, firstLayer: "block.0.ffn, cond" });
  const table = layersTable(plainPage, [result]);
  expect(table).toMatch(/^block\.0\.ffn +cond +1\.0e-1$/m);
  expect(table).toContain("cp2 parts at block.0.ffn, cond: the first layer above 1.0e-2.");
  expect(layersTable(plainPage, [withLayers(result, right, right)])).toContain("cp2: no layer is above 1.0e-2.");
  expect(accuracyTable(plainPage, "m", "cpu", [result], "one device")).toContain("pass");
  const page = accuracyPage({ model: "<m>", device: "cpu", results: [result], verdict: "passed.", made });
  expect(page).toContain("&lt;m&gt; on cpu");
  expect(page).toContain('<td class="words">block.0.ffn, cond</td>');
  expect(page).toContain(">limit</text>");
  // Without layers there is no such part.
  const { layers: _, firstLayer: __, ...plain } = result;
  expect(accuracyPage({ model: "m", device: "cpu", results: [plain], verdict: "passed.", made })).not.toContain(
    "Layer by layer",
  );
});

test("a logarithmic chart has equal steps for equal factors, and no point for 0", () => {
  const chart = lineChart({
    ...{ name: "n", unit: "", logarithmic: true, labels: ["a", "b", "c", "d"] },
    series: [{ name: "s", values: [0, 1e-3, 1e-2, 1e-1] }],
  });
  const heights = [...(chart?.text ?? "").matchAll(/<circle cx="[\d.]+" cy="([\d.]+)"/g)].map(([, y]) => Number(y));
  expect(heights).toHaveLength(3);
  const [first = 0, second = 0, third = 0] = heights;
  expect(first - second).toBeCloseTo(second - third, 5);
  expect(first).toBeGreaterThan(third);
  expect(lineChart({ name: "n", unit: "", labels: ["a"], series: [{ name: "s", values: [null] }] })).toBeUndefined();
});
