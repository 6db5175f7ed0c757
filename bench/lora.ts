// What changing LoRAs of an open engine takes: none, one, another strength, two, none again. Seconds are those of loading alone.
//   npx tsx bench/lora.ts [--model 1.4B] [--weights random] [--plan single] [--rank 64]       (npm run build before)
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { type EngineOptions, type LoraFile, openEngine } from "../src/index.js";
import { loadModel } from "../src/models/load.js";
import { findModel } from "../src/models/wan/find-model.js";
import { writeRandomLora } from "../test/lora.js";

const { values } = parseArgs({
  options: {
    model: { type: "string" },
    weights: { type: "string" },
    plan: { type: "string" },
    rank: { type: "string" },
  },
});
const model = values.model ?? "1.4B";
const folder = mkdtempSync(join(tmpdir(), "ditrun-bench-"));
try {
  const file = join(folder, "random.safetensors");
  const found = await findModel(model);
  const config = found.model.kind === "wan" ? found.model : await loadModel("wan-1.3b");
  if (config.kind !== "wan") throw new Error(`${model} is no Wan model.`);
  await writeRandomLora(file, config, /^blocks\./, Number(values.rank ?? 64));
  const options: EngineOptions = {
    model,
    plan: values.plan,
    weights: values.weights === "random" ? "random" : "checkpoint",
  };
  await using engine = await openEngine(options);
  const one: LoraFile = { file, strength: 1 };
  const rounds: [string, LoraFile[]][] = [
    ["none", []],
    ["one", [one]],
    ["half as strong", [{ file, strength: 0.5 }]],
    ["two", [one, { file, strength: -0.3 }]],
    ["none again", []],
  ];
  for (const [name, loras] of rounds) {
    const { ranks } = await engine.run({ prompt: "A cat", steps: 1, frames: 1, loras });
    const milliseconds = Math.max(...ranks.map(({ load }) => load.milliseconds));
    const bytes = ranks.reduce((sum, { load }) => sum + load.bytes, 0);
    console.log(`${name}: ${(milliseconds / 1e3).toFixed(3)} s, ${(bytes / 1e9).toFixed(2)} GB of weights renewed`);
  }
} finally {
  rmSync(folder, { recursive: true, force: true });
}
