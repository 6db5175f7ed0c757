import { cpSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { findCheckpointModel, findModel } from "../../../../src/models/wan/find-model.js";
import { modelSource } from "../../../../src/models/wan/model-source.js";
import { tinyCheckpoint } from "../../../../src/paths.js";

const folder = mkdtempSync(join(tmpdir(), "ditrun-model-"));
const copy = join(folder, "my-own");
cpSync(tinyCheckpoint, copy, { recursive: true });
afterAll(() => rmSync(folder, { recursive: true }));

test.each([
  ["1.4B", "wan-1.3b", "Wan-AI/Wan2.1-T2V-1.3B"],
  ["t2v-1.3B", "wan-1.3b", "Wan-AI/Wan2.1-T2V-1.3B"],
  ["Wan2.1-T2V-14B", "wan-14b", "Wan-AI/Wan2.1-T2V-14B"],
  ["Wan-AI/Wan2.1-T2V-1.3B", "wan-1.3b", "Wan-AI/Wan2.1-T2V-1.3B"],
  ["Wan-AI/Wan2.1-T2V-1.3B-Diffusers", "wan-1.3b", "Wan-AI/Wan2.1-T2V-1.3B-Diffusers"],
  ["wan-ai/wan2.1-t2v-14b-diffusers", "wan-14b", "Wan-AI/Wan2.1-T2V-14B-Diffusers"],
])("%s is %s, and of %s first", async (name, model, repository) => {
  const found = await findModel(name);
  expect(found.model.name).toBe(model);
  expect(found.preset?.repositories[0]).toBe(repository);
  expect(found.preset?.repositories).toHaveLength(2);
  expect(found.directory).toBeUndefined();
});

test.each(["Wan-AI/Wan2.1-I2V-14B-720P", "Wan-AI/Wan2.2-I2V-A14B", "Wan-AI/Wan2.1-VACE-1.3B", "i2v-14B"])(
  "%s is refused by its name",
  async (name) => {
    await expect(findModel(name)).rejects.toMatchObject({
      code: "ERR_CHECKPOINT_UNSUPPORTED",
      message: expect.stringContaining(`--model ${name} is `),
    });
  },
);

test("a folder is a model, and brings its checkpoint and its authors' settings along", async () => {
  for (const found of [await findModel(copy), await findCheckpointModel(copy)]) {
    expect(found).toMatchObject({
      directory: copy,
      model: { kind: "wan", width: 128 },
      preset: { name: "tiny", frames: 17 },
    });
    const source = await modelSource({
      ...{ found, weights: "checkpoint", seed: 0, directory: undefined, download: false, verify: false },
      ...{ environment: {}, onProgress: () => undefined, onNote: () => undefined },
    });
    expect(source.description).toContain(`${copy}, original layout`);
  }
});

test("two checkpoints are refused, and random weights of a folder", async () => {
  const found = await findModel(copy);
  const request = {
    ...{ found, seed: 0, download: false, verify: false, environment: {} },
    ...{ onProgress: () => undefined, onNote: () => undefined },
  };
  await expect(modelSource({ ...request, weights: "checkpoint", directory: tinyCheckpoint })).rejects.toThrow(
    `--model ${copy} and --ckpt-dir ${tinyCheckpoint} both name a checkpoint`,
  );
  await expect(modelSource({ ...request, weights: "random", directory: undefined })).rejects.toThrow(
    "--weights random reads no checkpoint: leave out the folder of --model, or name the model.",
  );
});
