import { cp, mkdir, mkdtemp, readdir, readFile, readlink, rm, symlink, unlink, writeFile } from "node:fs/promises";
import { homedir, tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { hubCache } from "../../../src/launcher/checkpoint/hub-cache.js";
import { detectLayout } from "../../../src/launcher/checkpoint/layout.js";
import { locateCheckpoint } from "../../../src/launcher/checkpoint/locate.js";
import { fetchVerified } from "../../../src/launcher/checkpoint/verified-file.js";
import { loadWanModel } from "../../../src/launcher/model.js";
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
    await expect(detectLayout(dir)).rejects.toThrow("diffusion_pytorch_model.safetensors");
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

/** Puts a folder into a Hugging Face cache as its snapshot of main. */
async function intoCache(cache: string, name: string, source: string) {
  const folder = join(cache, `models--${name.replace("/", "--")}`);
  await mkdir(join(folder, "refs"), { recursive: true });
  await mkdir(join(folder, "snapshots"));
  await writeFile(join(folder, "refs/main"), "abc\n");
  await cp(source, join(folder, "snapshots/abc"), { recursive: true });
  return join(folder, "snapshots/abc");
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

  test("--ckpt-dir is looked at instead", async () => {
    const directory = join(golden, "diffusers");
    const found = await locateCheckpoint({ ...request, directory, environment: { HF_HOME: dir } });
    expect(found.layout).toBe("diffusers");
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
    await expect(fetchVerified({ target, expected, label: "x", open, onBytes: () => {} })).rejects.toThrow(
      /Cannot write .*blob.incomplete: the disk is full/,
    );
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
