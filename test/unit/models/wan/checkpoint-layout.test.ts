import { cp, mkdir, mkdtemp, readFile, rename, rm, symlink, unlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { loadWanModel } from "../../../../src/models/load.js";
import { detectLayout } from "../../../../src/models/wan/checkpoint-layout.js";
import { tinyCheckpoint } from "../../../../src/paths.js";

const diffusers = new URL("../../../golden/data/wan/diffusers", import.meta.url).pathname;
let dir = "";
beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), "ditrun-checkpoint-"));
});
afterEach(() => rm(dir, { recursive: true }));

describe("layouts", () => {
  test("the original one", async () => {
    const directory = tinyCheckpoint;
    expect(await detectLayout(directory)).toEqual({
      layout: "original",
      directory,
      transformer: { config: `${directory}/config.json`, weights: `${directory}/diffusion_pytorch_model.safetensors` },
      textEncoder: { weights: `${directory}/models_t5_umt5-xxl-enc-bf16.pth` },
      vae: { weights: `${directory}/Wan2.1_VAE.pth` },
      tokenizer: `${directory}/google/umt5-xxl`,
    });
  });

  test("the diffusers one", async () => {
    const directory = diffusers;
    const part = (folder: string, file: string) => ({ weights: `${directory}/${folder}/${file}.safetensors` });
    expect(await detectLayout(directory)).toEqual({
      layout: "diffusers",
      directory,
      transformer: {
        config: `${directory}/transformer/config.json`,
        ...part("transformer", "diffusion_pytorch_model"),
      },
      textEncoder: part("text_encoder", "model"),
      vae: part("vae", "diffusion_pytorch_model"),
      tokenizer: `${directory}/tokenizer`,
    });
  });

  test("a file that cannot be looked at is not called missing", async () => {
    await symlink("config.json", join(dir, "config.json"));
    await expect(detectLayout(dir)).rejects.toThrow("config.json could not be read: its symbolic links lead in a");
    await cp(tinyCheckpoint, join(dir, "copy"), { recursive: true });
    await unlink(join(dir, "copy/config.json"));
    await symlink("config.json", join(dir, "copy/config.json"));
    const failure = detectLayout(join(dir, "copy")).then(loadWanModel);
    await expect(failure).rejects.toThrow("config.json could not be read: its symbolic links lead in a circle.");
  });

  test("shards are found through their index, and each must be there", async () => {
    const copy = join(dir, "sharded");
    await cp(tinyCheckpoint, copy, { recursive: true });
    const [one, two] = [
      "diffusion_pytorch_model-00001-of-00002.safetensors",
      "diffusion_pytorch_model-00002-of-00002.safetensors",
    ];
    await cp(join(copy, "diffusion_pytorch_model.safetensors"), join(copy, one));
    await unlink(join(copy, "diffusion_pytorch_model.safetensors"));
    const index = join(copy, "diffusion_pytorch_model.safetensors.index.json");
    await writeFile(index, JSON.stringify({ weight_map: { a: one, b: two } }));
    await expect(detectLayout(copy)).rejects.toThrow(`the original layout, but ${two} is missing`);
    await cp(join(copy, one), join(copy, two));
    expect((await detectLayout(copy)).transformer.weights).toBe(index);
    await writeFile(index, "{}");
    await expect(detectLayout(copy)).rejects.toThrow(/no weight_map/);
  });

  test("what is missing is named", async () => {
    const copy = join(dir, "copy");
    for (const [layout, file] of [
      ["original", "Wan2.1_VAE.pth"],
      ["original", "google/umt5-xxl/tokenizer.json"],
      ["original", "diffusion_pytorch_model.safetensors"],
      ["diffusers", "transformer/config.json"],
      ["diffusers", "vae/diffusion_pytorch_model.safetensors"],
    ] as const) {
      await cp(layout === "original" ? tinyCheckpoint : diffusers, copy, { recursive: true });
      await unlink(join(copy, file));
      await expect(detectLayout(copy)).rejects.toThrow(`in the ${layout} layout, but ${file}`);
      await rm(copy, { recursive: true });
    }
    await expect(detectLayout(dir)).rejects.toThrow(/neither config.json .* nor model_index.json/);
    await expect(detectLayout(join(dir, "nowhere"))).rejects.toThrow(/there is no such folder/);
  });
});

describe("files by other names are told by what is in them", () => {
  const copyOf = (layout: "original" | "diffusers") =>
    cp(layout === "original" ? tinyCheckpoint : diffusers, dir, { recursive: true });
  const weights = "diffusion_pytorch_model.safetensors";

  const others: [string, string, string][] = [
    ["original", weights, "wan2.1-t2v.gguf"],
    ["original", "Wan2.1_VAE.pth", "wan_2.1_vae.safetensors"],
    ["original", "models_t5_umt5-xxl-enc-bf16.pth", "umt5.bin"],
    ["original", "google/umt5-xxl/tokenizer.json", "spiece.model"],
    ["diffusers", `transformer/${weights}`, "diffusion_pytorch_model.fp16.safetensors"],
    ["diffusers", `vae/${weights}`, "diffusion_pytorch_model.bin"],
    ["diffusers", "text_encoder/model.safetensors", "pytorch_model.bin"],
  ];
  test.each(others)("%s: in place of %s stands %s", async (layout, file, other) => {
    await copyOf(layout === "original" ? "original" : "diffusers");
    const path = join(dir, dirname(file), other);
    await rename(join(dir, file), path);
    const { transformer, textEncoder, vae, tokenizer } = await detectLayout(dir);
    expect([transformer.weights, textEncoder.weights, vae.weights, tokenizer]).toContain(path);
  });

  test.each([
    ["original", weights, "diffusion_pytorch_model-00001-of-00006.safetensors"],
    ["diffusers", "text_encoder/model.safetensors", "pytorch_model-00001-of-00006.bin"],
  ] as const)("%s: one shard of six", async (layout, file, shard) => {
    await copyOf(layout);
    await rename(join(dir, file), join(dir, dirname(file), shard));
    const second = shard.replace("00001", "00002");
    await expect(detectLayout(dir)).rejects.toThrow(`${second} is missing, one of the 6 files of`);
  });

  test("two files that could be meant are an error that names an option", async () => {
    await copyOf("original");
    await cp(join(dir, "Wan2.1_VAE.pth"), join(dir, "other.pth"));
    await rename(join(dir, "Wan2.1_VAE.pth"), join(dir, "one.pth"));
    await expect(detectLayout(dir)).rejects.toThrow(
      "has 2 files with a VAE, one.pth and other.pth among them: name one with --vae.",
    );
  });

  test("a file of weights that holds nothing of Wan is named", async () => {
    await copyOf("original");
    await unlink(join(dir, weights));
    await cp("test/golden/data/schedulers.safetensors", join(dir, "other.safetensors"));
    await expect(detectLayout(dir)).rejects.toThrow(
      `but ${weights} (or ${weights}.index.json) is missing, and other.safetensors holds no part of a Wan model; download it again.`,
    );
  });

  test("ComfyUI's folders, and a folder of single files", async () => {
    const put = async (from: string, to: string) => cp(join(tinyCheckpoint, from), join(dir, to), { recursive: true });
    await put("diffusion_pytorch_model.safetensors", "comfy/diffusion_models/wan2.1.safetensors");
    await put("models_t5_umt5-xxl-enc-bf16.pth", "comfy/text_encoders/umt5.pth");
    await put("Wan2.1_VAE.pth", "comfy/vae/wan_2.1_vae.pth");
    await expect(detectLayout(join(dir, "comfy"))).rejects.toThrow(
      "in the ComfyUI layout, but tokenizer.json is missing",
    );
    await put("google/umt5-xxl", "comfy/text_encoders/google/umt5-xxl");
    expect(await detectLayout(join(dir, "comfy"))).toMatchObject({
      layout: "ComfyUI",
      transformer: { weights: join(dir, "comfy/diffusion_models/wan2.1.safetensors") },
      tokenizer: join(dir, "comfy/text_encoders/google/umt5-xxl/tokenizer.json"),
    });
    await copyOf("original");
    await unlink(join(dir, "config.json"));
    expect(await detectLayout(dir)).toMatchObject({ vae: { weights: join(dir, "Wan2.1_VAE.pth") } });
  });
});

describe("what is no text-to-video checkpoint is called by its name", () => {
  const copyOf = async (layout: "original" | "diffusers") => {
    await cp(layout === "original" ? tinyCheckpoint : diffusers, dir, { recursive: true });
  };
  const edit = async (file: string, changes: Record<string, unknown>) => {
    const path = join(dir, file);
    await writeFile(path, JSON.stringify({ ...JSON.parse(await readFile(path, "utf8")), ...changes }));
  };
  const only =
    "ditrun runs text-to-video of Wan 2.1 and 2.2: take Wan-AI/Wan2.1-T2V-1.3B, -14B or Wan-AI/Wan2.2-T2V-A14B.";

  const pipelines: [string, Record<string, unknown>, string][] = [
    ["time steps for each token", { expand_timesteps: true }, "a Wan 2.2 TI2V-5B checkpoint"],
    ["i2v", { _class_name: "WanImageToVideoPipeline" }, "an image-to-video checkpoint: model_index.json says WanIm"],
    ["vace", { _class_name: "WanVACEPipeline" }, "a VACE checkpoint"],
    [
      "another",
      { _class_name: "Flux\u001bPipeline" },
      "no text-to-video checkpoint: model_index.json says Flux\\u001bP",
    ],
  ];
  test.each(pipelines)("diffusers: %s", async (_, changes, what) => {
    await copyOf("diffusers");
    await edit("model_index.json", changes);
    await expect(detectLayout(dir)).rejects.toThrow(`${dir} is ${what}`);
    await expect(detectLayout(dir)).rejects.toThrow(only);
  });

  test("diffusers: what newer versions write for Wan 2.1 is no second transformer", async () => {
    await copyOf("diffusers");
    await edit("model_index.json", { transformer_2: [null, null], boundary_ratio: null, expand_timesteps: false });
    expect((await detectLayout(dir)).layout).toBe("diffusers");
    await mkdir(join(dir, "transformer_2"));
    await expect(detectLayout(dir)).rejects.toThrow("transformer_2/config.json is missing");
  });

  test.each([
    { transformer_2: ["diffusers", "WanTransformer3DModel"] },
    { transformer_2: [null, null], boundary_ratio: 0.875 },
  ])("diffusers: a second transformer that is not there, by %j", async (changes) => {
    await copyOf("diffusers");
    await edit("model_index.json", changes);
    await expect(detectLayout(dir)).rejects.toThrow("in the diffusers layout, but transformer_2 is missing");
  });

  const transformers: [Record<string, unknown>, string][] = [
    [{ in_channels: 36 }, "an image-to-video checkpoint"],
    [{ image_dim: 1280 }, "an image-to-video checkpoint"],
    [{ pos_embed_seq_len: 514 }, "a first-and-last-frame-to-video checkpoint"],
    [{ in_channels: 48 }, "a Wan 2.2 TI2V-5B checkpoint"],
    [{ _class_name: "WanVACETransformer3DModel" }, "a VACE checkpoint"],
  ];
  test.each(transformers)("diffusers: a transformer with %j", async (changes, what) => {
    await copyOf("diffusers");
    await edit("transformer/config.json", changes);
    await expect(detectLayout(dir)).rejects.toThrow(`${dir} is ${what}`);
  });

  const originals: [Record<string, unknown>, string][] = [
    [{ model_type: "i2v", in_dim: 36 }, "an image-to-video checkpoint: config.json says i2v"],
    [{ model_type: "flf2v" }, "a first-and-last-frame-to-video checkpoint"],
    [{ model_type: "vace" }, "a VACE checkpoint"],
    [{ model_type: "ti2v", in_dim: 48 }, "a Wan 2.2 TI2V-5B checkpoint"],
    [{ in_dim: 36 }, "an image-to-video checkpoint"],
  ];
  test.each(originals)("original: %j", async (changes, what) => {
    await copyOf("original");
    await edit("config.json", changes);
    await expect(detectLayout(dir)).rejects.toThrow(`${dir} is ${what}`);
  });

  test("original: two experts, one of them, Wan 2.2's VAE", async () => {
    await copyOf("original");
    await writeFile(join(dir, "Wan2.2_VAE.pth"), "");
    await expect(detectLayout(dir)).rejects.toThrow("is a Wan 2.2 checkpoint: it has Wan2.2_VAE.pth");
    const expert = join(dir, "low_noise_model");
    await mkdir(expert);
    await rm(join(dir, "Wan2.2_VAE.pth"));
    await expect(detectLayout(dir)).rejects.toThrow("but high_noise_model/config.json is missing");
    await expect(detectLayout(expert)).rejects.toThrow("is by its name one of the two transformers of Wan 2.2 A14B");
    await writeFile(join(expert, "config.json"), JSON.stringify({ model_type: "i2v", in_dim: 36 }));
    await expect(detectLayout(dir)).rejects.toThrow(
      `${dir} is an image-to-video checkpoint: low_noise_model/config.json says i2v`,
    );
  });

  test.each(["diffusion_pytorch_model.safetensors", "Wan2.1_VAE.pth", "google/umt5-xxl/tokenizer.json", "config.json"])(
    "a Git LFS pointer: %s",
    async (file) => {
      await copyOf("original");
      await writeFile(
        join(dir, file),
        `version https://git-lfs.github.com/spec/v1\noid sha256:${"0f".repeat(32)}\nsize 9\n`,
      );
      await expect(detectLayout(dir)).rejects.toThrow(/is a Git LFS pointer, .*git lfs pull --include=/);
    },
  );

  test("sizes that no model has are named", async () => {
    await copyOf("original");
    for (const [key, value] of Object.entries({ text_len: 1e9, num_layers: 1e9, freq_dim: 255 })) {
      await edit("config.json", { [key]: value });
      const failure = detectLayout(dir).then(loadWanModel);
      await expect(failure).rejects.toThrow(`config.json: ${key} is ${value}; it must be`);
      await copyOf("original");
    }
  });
});
