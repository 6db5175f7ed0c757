import { copyFileSync, mkdtempSync, renameSync, rmSync, utimesSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { loadWanModel } from "../../../../src/models/load.js";
import type { WanModel } from "../../../../src/models/schema.js";
import { WanFiles } from "../../../../src/worker/tasks/wan-files.js";
import { writeRandomLora } from "../../../lora.js";
import { checkpointOf, soloStore, weightsOf } from "../wan/golden.js";

let folder: string;
let model: WanModel;
let files: WanFiles;
const store = soloStore();
const at = (name: string) => join(folder, name);
const lora = (strength = 1) => [{ file: at("lora.safetensors"), strength }];
beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), "ditrun-test-"));
  model = await loadWanModel(await checkpointOf("original"));
  const weights = await weightsOf("original");
  if (weights.from !== "checkpoint") throw new Error("The golden weights are files.");
  copyFileSync(weights.transformer, at("model.safetensors"));
  await writeRandomLora(at("lora.safetensors"), model, /^blocks\.0\.ffn/);
  files = new WanFiles(model, { ...weights, transformer: at("model.safetensors") });
  await files.begin(store);
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

async function lay(strength?: number): Promise<void> {
  const found = await files.others(lora(strength), store);
  if (!found) throw new Error("They are laid already.");
  files.laid = found;
}

test("a LoRA that was written anew under its name is another one, and so is another strength", async () => {
  expect(await files.others([], store)).toBeUndefined();
  await lay();
  expect(await files.others(lora(), store)).toBeUndefined();
  expect(await files.others(lora(0.5), store)).toMatchObject({ loras: lora(0.5) });
  await writeRandomLora(at("new.safetensors"), model, /^blocks\.1\.ffn/);
  renameSync(at("new.safetensors"), at("lora.safetensors"));
  // What the old one changed is known without its file.
  expect([...files.laid.changed].every((name) => name.startsWith("blocks.0"))).toBe(true);
  const found = await files.others(lora(), store);
  expect([...(found?.changed ?? [])].every((name) => name.startsWith("blocks.1"))).toBe(true);
});

test("one that changes while it is read, or has gone, is told of", async () => {
  await lay();
  await files.confirm(store);
  utimesSync(at("lora.safetensors"), 1, 2);
  await expect(files.confirm(store)).rejects.toMatchObject({
    code: "ERR_FILE_CHANGED",
    message: `${at("lora.safetensors")} changed while it was loaded: run the same again.`,
  });
  rmSync(at("lora.safetensors"));
  await expect(files.others(lora(), store)).rejects.toMatchObject({ code: "ERR_FILE_READ" });
});

test("a checkpoint that was written anew is not what a LoRA is laid over", async () => {
  await files.requireBase(store);
  copyFileSync(at("model.safetensors"), at("new.safetensors"));
  renameSync(at("new.safetensors"), at("model.safetensors"));
  await expect(files.requireBase(store)).rejects.toThrow(
    `${at("model.safetensors")} has changed since it was loaded, so LoRAs cannot be laid over it: open the model anew.`,
  );
});

test("where one rank alone finds another file, all lay it anew", async () => {
  await lay();
  const others = { ...store, largest: async (name: string, value: number) => (name === "other LoRAs" ? 1 : value) };
  expect(await files.others(lora(), others)).toMatchObject({ loras: lora() });
});
