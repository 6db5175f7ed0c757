import {
  cp,
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  readlink,
  rename,
  rm,
  symlink,
  unlink,
  writeFile,
} from "node:fs/promises";
import { homedir, tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { pathToFileURL } from "node:url";
import { execa } from "execa";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { hubCache, hubToken } from "../../../src/launcher/checkpoint/hub-cache.js";
import { detectLayout } from "../../../src/launcher/checkpoint/layout.js";
import { locateCheckpoint, openCheckpoint } from "../../../src/launcher/checkpoint/locate.js";
import { fetchVerified } from "../../../src/launcher/checkpoint/verified-file.js";
import { loadWanModel } from "../../../src/launcher/model.js";
import { packageRoot } from "../../../src/launcher/paths.js";
import { startHub, type TestHub } from "./test-hub.js";

const golden = new URL("../../golden/data/wan/", import.meta.url).pathname;
const repository = "Wan-AI/Wan2.1-T2V-1.3B";
let dir = "";
beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), "ditrun-checkpoint-"));
});
afterEach(() => rm(dir, { recursive: true }));

describe("layouts", () => {
  test("the original one", async () => {
    const directory = join(golden, "original");
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
    const directory = join(golden, "diffusers");
    const part = (folder: string, file: string) => ({
      config: `${directory}/${folder}/config.json`,
      weights: `${directory}/${folder}/${file}.safetensors`,
    });
    expect(await detectLayout(directory)).toEqual({
      layout: "diffusers",
      directory,
      transformer: part("transformer", "diffusion_pytorch_model"),
      textEncoder: part("text_encoder", "model"),
      vae: part("vae", "diffusion_pytorch_model"),
      tokenizer: `${directory}/tokenizer`,
    });
  });

  test("a file that cannot be looked at is not called missing", async () => {
    await symlink("config.json", join(dir, "config.json"));
    await expect(detectLayout(dir)).rejects.toThrow("config.json could not be read: its symbolic links lead in a");
    await cp(join(golden, "original"), join(dir, "copy"), { recursive: true });
    await unlink(join(dir, "copy/config.json"));
    await symlink("config.json", join(dir, "copy/config.json"));
    const failure = detectLayout(join(dir, "copy")).then(loadWanModel);
    await expect(failure).rejects.toThrow("config.json could not be read: its symbolic links lead in a circle.");
  });

  test("shards are found through their index, and each must be there", async () => {
    const copy = join(dir, "sharded");
    await cp(join(golden, "original"), copy, { recursive: true });
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
      ["diffusers", "text_encoder/config.json"],
      ["diffusers", "vae/diffusion_pytorch_model.safetensors"],
    ] as const) {
      await cp(join(golden, layout), copy, { recursive: true });
      await unlink(join(copy, file));
      await expect(detectLayout(copy)).rejects.toThrow(`in the ${layout} layout, but ${file}`);
      await rm(copy, { recursive: true });
    }
    await expect(detectLayout(dir)).rejects.toThrow(/neither config.json .* nor model_index.json/);
    await expect(detectLayout(join(dir, "nowhere"))).rejects.toThrow(/there is no such folder/);
  });
});

describe("what is no Wan 2.1 text-to-video checkpoint is called by its name", () => {
  const copyOf = async (layout: "original" | "diffusers") => {
    await cp(join(golden, layout), dir, { recursive: true });
  };
  const edit = async (file: string, changes: Record<string, unknown>) => {
    const path = join(dir, file);
    await writeFile(path, JSON.stringify({ ...JSON.parse(await readFile(path, "utf8")), ...changes }));
  };
  const only = "ditrun runs Wan 2.1 text-to-video: take Wan-AI/Wan2.1-T2V-1.3B or -14B.";

  const pipelines: [string, Record<string, unknown>, string][] = [
    ["a second transformer", { transformer_2: ["diffusers", "WanTransformer3DModel"] }, "a Wan 2.2 A14B checkpoint"],
    ["a boundary between two", { transformer_2: [null, null], boundary_ratio: 0.875 }, "a Wan 2.2 A14B checkpoint"],
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
    await expect(detectLayout(dir)).rejects.toThrow("is a Wan 2.2 A14B checkpoint: it has a second transformer");
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

  test("original: two experts, one of them, Wan 2.2's VAE, ComfyUI's folder", async () => {
    await copyOf("original");
    await writeFile(join(dir, "Wan2.2_VAE.pth"), "");
    await expect(detectLayout(dir)).rejects.toThrow("is a Wan 2.2 checkpoint: it has Wan2.2_VAE.pth");
    const expert = join(dir, "low_noise_model");
    await mkdir(expert);
    await expect(detectLayout(dir)).rejects.toThrow("is a Wan 2.2 A14B checkpoint with two transformers");
    await expect(detectLayout(expert)).rejects.toThrow("is one of the two transformers of a Wan 2.2 A14B checkpoint");
    for (const folder of ["comfy/diffusion_models", "comfy/vae"]) await mkdir(join(dir, folder), { recursive: true });
    await expect(detectLayout(join(dir, "comfy"))).rejects.toThrow("is ComfyUI's models folder");
  });

  const weights = "diffusion_pytorch_model.safetensors";
  const instead: [string, string, string, string][] = [
    ["original", weights, "wan2.1-Q8_0.gguf", "a GGUF file"],
    ["original", weights, "diffusion_pytorch_model-00001-of-00006.safetensors", "one of its shards, without the index"],
    ["original", "Wan2.1_VAE.pth", "Wan2.1_VAE.safetensors", "a safetensors file"],
    ["original", "google/umt5-xxl/tokenizer.json", "spiece.model", "a SentencePiece model"],
    ["diffusers", `transformer/${weights}`, "diffusion_pytorch_model.fp16.safetensors", "a variant by name"],
    ["diffusers", `vae/${weights}`, "diffusion_pytorch_model.bin", "a PyTorch file"],
    ["diffusers", "text_encoder/model.safetensors", "pytorch_model-00001-of-00002.bin", "a PyTorch file"],
  ];
  test.each(instead)("%s: in place of %s stands %s", async (layout, file, other, what) => {
    await copyOf(layout === "original" ? "original" : "diffusers");
    await rename(join(dir, file), join(dir, dirname(file), other));
    const failure = detectLayout(dir);
    await expect(failure).rejects.toThrow(`is missing; ${other} stands there instead: ${what}`);
    await expect(failure).rejects.not.toThrow(/missing; download it again/);
  });

  test("a GGUF file of another part is not what is missing", async () => {
    await copyOf("original");
    await rename(join(dir, "Wan2.1_VAE.pth"), join(dir, "wan2.1-Q8_0.gguf"));
    await expect(detectLayout(dir)).rejects.toThrow("but Wan2.1_VAE.pth is missing; download it again.");
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

const commit = "abc1".repeat(10);
const built = pathToFileURL(join(packageRoot, "dist/launcher/checkpoint/hub-cache.js")).href;

/** Puts a folder into a Hugging Face cache as its snapshot of main. */
async function intoCache(cache: string, name: string, source: string) {
  const folder = join(cache, `models--${name.replace("/", "--")}`);
  await mkdir(join(folder, "refs"), { recursive: true });
  await mkdir(join(folder, "snapshots"));
  await writeFile(join(folder, "refs/main"), `${commit}\n`);
  await cp(source, join(folder, "snapshots", commit), { recursive: true });
  return join(folder, "snapshots", commit);
}

const request = { model: "1.4B", repositories: [repository, `${repository}-Diffusers`], download: false } as const;

describe("the Hugging Face cache", () => {
  test("is found through HF_HUB_CACHE, HF_HOME and XDG_CACHE_HOME, in either layout", async () => {
    const original = await intoCache(join(dir, "a"), repository, join(golden, "original"));
    const ports = await intoCache(join(dir, "b/hub"), `${repository}-Diffusers`, join(golden, "diffusers"));
    const xdg = await intoCache(join(dir, "c/huggingface/hub"), repository, join(golden, "original"));
    const found = async (environment: Record<string, string>) =>
      (await locateCheckpoint({ ...request, environment })).directory;
    expect(await found({ HF_HUB_CACHE: join(dir, "a"), HF_HOME: join(dir, "b") })).toBe(original);
    expect(await found({ HF_HOME: join(dir, "b") })).toBe(ports);
    expect(await found({ XDG_CACHE_HOME: join(dir, "c") })).toBe(xdg);
    expect(await found({ HF_HUB_CACHE: "", HF_HOME: "", XDG_CACHE_HOME: join(dir, "c") })).toBe(xdg);
    expect(hubCache({ HF_HOME: "~/models" })).toBe(join(homedir(), "models/hub"));
  });

  test("without a checkpoint, or with half of one, the sentence has the command that gets it", async () => {
    const environment = { HF_HOME: dir };
    const command = 'ditrun wan --model 1.4B generate --download --prompt "…"';
    await expect(locateCheckpoint({ ...request, environment })).rejects.toThrow(command);
    await expect(locateCheckpoint({ ...request, environment })).rejects.toThrow(
      /No checkpoint of Wan 1.4B is in .*\/hub; get Wan-AI/,
    );
    const snapshot = await intoCache(join(dir, "hub"), repository, join(golden, "original"));
    await unlink(join(snapshot, "Wan2.1_VAE.pth"));
    const half = locateCheckpoint({ ...request, environment });
    await expect(half).rejects.toThrow(`but Wan2.1_VAE.pth is missing; complete it with \`${command}\`.`);
  });

  test("a folder may be a repository's in the cache; a file is called one", async () => {
    const snapshot = await intoCache(dir, repository, join(golden, "diffusers"));
    expect((await openCheckpoint(join(golden, "diffusers"))).layout).toBe("diffusers");
    expect((await openCheckpoint(dirname(dirname(snapshot)))).directory).toBe(snapshot);
    await expect(openCheckpoint(join(golden, "original/config.json"))).rejects.toThrow("it is a file; name the folder");
  });

  test("a complete snapshot without refs/main is taken, with a word, if it is the only one", async () => {
    const environment = { HF_HOME: dir };
    const snapshot = await intoCache(join(dir, "hub"), repository, join(golden, "original"));
    const folder = dirname(dirname(snapshot));
    const other = join(folder, "snapshots", "d".repeat(40));
    await mkdir(other);
    await unlink(join(folder, "refs/main"));
    const notes: string[] = [];
    const locate = () => locateCheckpoint({ ...request, environment, onNote: (note) => notes.push(note) });
    expect((await locate()).directory).toBe(snapshot);
    expect(notes).toEqual([`${folder} has no refs/main: its only complete snapshot is taken, ${snapshot}.`]);
    await cp(join(golden, "original"), other, { recursive: true });
    await expect(locate()).rejects.toThrow("has 2 complete snapshots and no refs/main that chooses one");
  });

  test("refs/main can only name a snapshot", async () => {
    const snapshot = await intoCache(join(dir, "hub"), repository, join(golden, "original"));
    await cp(join(golden, "original"), join(dir, "outside"), { recursive: true });
    await rm(snapshot, { recursive: true });
    await writeFile(join(dirname(dirname(snapshot)), "refs/main"), "../../../outside");
    const located = locateCheckpoint({ ...request, environment: { HF_HOME: dir } });
    await expect(located).rejects.toThrow("No checkpoint of Wan 1.4B");
  });

  test("without a home folder the variables are enough, and else are named", async () => {
    const program = `
      import { hubCache, hubToken } from ${JSON.stringify(built)};
      const { HF_HUB_CACHE } = process.env;
      console.log(hubCache({ HF_HUB_CACHE }), await hubToken({ HF_HUB_CACHE }));
      try { hubCache({}) } catch (error) { console.log(error.message) }`;
    const preload = join(dir, "no-home.cjs");
    await writeFile(preload, 'require("node:os").homedir = () => { throw new Error("ENOENT"); };');
    const child = await execa("node", ["--require", preload, "--input-type=module", "-e", program], {
      env: { HF_HUB_CACHE: dir },
    });
    expect(child.stdout.split("\n")).toEqual([
      `${dir} undefined`,
      expect.stringMatching(/^The home folder is not known: HOME is not set.*; set HF_HOME to a folder\.$/),
    ]);
  });

  test("the token is HF_TOKEN, else what hf auth login has stored", async () => {
    await writeFile(join(dir, "token"), "hf_stored\n");
    await writeFile(join(dir, "other"), "hf_other");
    const environment = { HF_HOME: dir };
    expect(await hubToken({ ...environment, HF_TOKEN: " hf_given " })).toBe("hf_given");
    expect(await hubToken(environment)).toBe("hf_stored");
    expect(await hubToken({ ...environment, HF_TOKEN_PATH: join(dir, "other") })).toBe("hf_other");
    expect(await hubToken({ ...environment, HF_HUB_DISABLE_IMPLICIT_TOKEN: "1" })).toBeUndefined();
    await expect(hubToken({ HF_TOKEN: "hf_a\nb" })).rejects.toThrow("HF_TOKEN holds no token");
  });
});

describe("--download", () => {
  let hub: TestHub;
  beforeEach(async () => {
    hub = await startHub(repository, join(golden, "original"));
  });
  afterEach(() => hub.close());

  const download = (
    more: Record<string, string> = {},
    onProgress?: (p: { doneBytes: number; totalBytes: number }) => void,
  ) =>
    locateCheckpoint({
      ...request,
      download: true,
      environment: { HF_HOME: dir, HF_ENDPOINT: hub.endpoint, ...more },
      ...(onProgress ? { onProgress } : {}),
    });
  const folder = () => join(dir, "hub", `models--${repository.replace("/", "--")}`);

  test("fills the cache as other tools do; a second run asks for nothing", async () => {
    const seen: { doneBytes: number; totalBytes: number }[] = [];
    const found = await download({}, (progress) => seen.push(progress));
    expect(found.layout).toBe("original");
    expect(await readFile(join(folder(), "refs/main"), "utf8")).toBe(hub.commit);
    expect(found.directory).toBe(join(folder(), "snapshots", hub.commit));
    for (const file of ["config.json", "Wan2.1_VAE.pth", "google/umt5-xxl/tokenizer.json"]) {
      expect(await readlink(join(found.directory, file))).toMatch(/^(\.\.\/)+blobs\/[0-9a-f]{40,64}$/);
      expect((await readFile(join(found.directory, file))).equals(await readFile(join(golden, "original", file)))).toBe(
        true,
      );
    }
    // The hub also has a picture and a README, which are not wanted.
    expect(await readdir(found.directory)).not.toContain("README.md");
    const last = seen.at(-1);
    expect(last?.doneBytes).toBe(last?.totalBytes);
    expect(last?.totalBytes).toBeGreaterThan(7_000_000);
    const requests = hub.requests.length;
    expect((await download()).directory).toBe(found.directory);
    expect(hub.requests.length).toBe(requests);
  });

  test("goes on within a run when the connection breaks", async () => {
    hub.cutAfter("Wan2.1_VAE.pth", [1_000_000, 1_500_000]);
    const found = await download();
    const file = await readFile(join(found.directory, "Wan2.1_VAE.pth"));
    expect(file.equals(await readFile(join(golden, "original/Wan2.1_VAE.pth")))).toBe(true);
    const ranges = hub.requests.filter((r) => r.path.endsWith("VAE.pth") && !["", "bytes=0-0"].includes(r.range));
    expect(ranges.length).toBe(2);
    for (const { range } of ranges) expect(range).toMatch(/^bytes=[1-9]\d*-\d+$/);
  });

  test("goes on in the next run, and nothing counts as there before all is", async () => {
    hub.cutAfter("Wan2.1_VAE.pth", [1_000_000, 0, 0, 0, 0, 0]);
    await expect(download()).rejects.toThrow(
      /Wan2.1_VAE.pth was cut off after \d+ of 3774867 bytes .* run the same command again/,
    );
    await expect(readFile(join(folder(), "refs/main"))).rejects.toThrow(/ENOENT/);
    hub.requests.length = 0;
    expect((await download()).layout).toBe("original");
    const [range] = hub.requests.flatMap((r) =>
      r.path.endsWith("VAE.pth") && r.range !== "bytes=0-0" ? [r.range] : [],
    );
    expect(range).toMatch(/^bytes=[1-9]\d*-3774866$/);
  });

  test("a wrong hash is found, and the file is fetched anew the next time", async () => {
    hub.corrupt("config.json");
    await expect(download()).rejects.toThrow(
      /config.json was downloaded with the hash [0-9a-f]{40}, but it should have/,
    );
    hub.corrupt("diffusion_pytorch_model.safetensors");
    await expect(download()).rejects.toThrow(
      /safetensors was downloaded with the hash [0-9a-f]{64}, but it should have/,
    );
    expect((await readdir(join(folder(), "blobs"))).filter((name) => name.endsWith(".incomplete"))).toEqual([]);
    hub.corrupt("");
    expect((await download()).layout).toBe("original");
  });

  test("the token is sent; refusals and an absent server are sentences", async () => {
    hub.requireToken("hf_right");
    await expect(download()).rejects.toThrow(/the server answered 401; set HF_TOKEN/);
    await expect(download({ HF_TOKEN: "hf_wrong" })).rejects.toThrow(/answered 401/);
    expect((await download({ HF_TOKEN: "hf_right" })).layout).toBe("original");
    for (const HF_ENDPOINT of ["huggingface.co", "ftp://huggingface.co"])
      await expect(download({ HF_HOME: join(dir, "x"), HF_ENDPOINT })).rejects.toThrow(
        `HF_ENDPOINT is "${HF_ENDPOINT}"; it must be a web address`,
      );
    const gone = { HF_HOME: join(dir, "x"), HF_ENDPOINT: "http://127.0.0.1:9" };
    await expect(download(gone)).rejects.toThrow(/Cannot download Wan-AI.* from http:\/\/127.0.0.1:9: /);
    await expect(
      locateCheckpoint({
        ...request,
        repositories: ["no/such"],
        download: true,
        environment: { HF_HOME: dir, HF_ENDPOINT: hub.endpoint, HF_TOKEN: "hf_right" },
      }),
    ).rejects.toThrow(/answered 404; check the name/);
  });

  test("a server that lists paths outside of the repository is refused", async () => {
    hub.addListing({ type: "file", path: "../../escape.json", size: 1, oid: "0".repeat(40) });
    await expect(download()).rejects.toThrow(/escape.json .* cannot be right/);
    expect(await readdir(dir)).not.toContain("escape.json");
  });

  test("a full disk is a sentence and is not tried again", async () => {
    const target = join(dir, "blob");
    await symlink("/dev/full", `${target}.incomplete`);
    let opened = 0;
    const open = async () => {
      opened++;
      return new Blob(["four"]);
    };
    const expected = { size: 4, oid: "0".repeat(64) };
    const fetched = fetchVerified({ target, expected, resumes: true, label: "x", open, onBytes: () => {} });
    await expect(fetched).rejects.toThrow(/Cannot write .*blob.incomplete: the disk is full/);
    expect(opened).toBe(1);
  });

  test("a broken link in a snapshot is replaced", async () => {
    const found = await download();
    await unlink(join(found.directory, "config.json"));
    await symlink("../../blobs/gone", join(found.directory, "config.json"));
    const again = await download();
    expect((await readFile(join(again.directory, "config.json"))).byteLength).toBeGreaterThan(0);
  });
});
