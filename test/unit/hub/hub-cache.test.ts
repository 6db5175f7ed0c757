import { cp, mkdir, mkdtemp, rm, unlink, writeFile } from "node:fs/promises";
import { homedir, tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { pathToFileURL } from "node:url";
import { execa } from "execa";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { hubCache, hubToken } from "../../../src/hub/hub-cache.js";
import { locateCheckpoint, openCheckpoint } from "../../../src/models/wan/locate.js";
import { packageRoot, tinyCheckpoint } from "../../../src/paths.js";

const golden = new URL("../../golden/data/wan", import.meta.url).pathname;
const repository = "Wan-AI/Wan2.1-T2V-1.3B";
let dir = "";
beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), "ditrun-checkpoint-"));
});
afterEach(() => rm(dir, { recursive: true }));

const commit = "abc1".repeat(10);
const built = pathToFileURL(join(packageRoot, "dist/hub/hub-cache.js")).href;

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
    const original = await intoCache(join(dir, "a"), repository, tinyCheckpoint);
    const ports = await intoCache(join(dir, "b/hub"), `${repository}-Diffusers`, join(golden, "diffusers"));
    const xdg = await intoCache(join(dir, "c/huggingface/hub"), repository, tinyCheckpoint);
    const found = async (environment: Record<string, string>) =>
      (await locateCheckpoint({ ...request, environment })).directory;
    expect(await found({ HF_HUB_CACHE: join(dir, "a"), HF_HOME: join(dir, "b") })).toBe(original);
    expect(await found({ HF_HOME: join(dir, "b") })).toBe(ports);
    expect(await found({ XDG_CACHE_HOME: join(dir, "c") })).toBe(xdg);
    expect(await found({ HF_HUB_CACHE: "", HF_HOME: "", XDG_CACHE_HOME: join(dir, "c") })).toBe(xdg);
    expect(hubCache({ HF_HUB_CACHE: "/new", HUGGINGFACE_HUB_CACHE: "/old" })).toBe("/new");
    expect(hubCache({ HF_HOME: "/home", HUGGINGFACE_HUB_CACHE: "/old" })).toBe("/old");
    expect(hubCache({ HF_HOME: "~/models" })).toBe(join(homedir(), "models/hub"));
  });

  test("without a checkpoint, or with half of one, the sentence has the command that gets it", async () => {
    const environment = { HF_HOME: dir };
    const command = 'ditrun wan --model 1.4B generate --download --prompt "…"';
    await expect(locateCheckpoint({ ...request, environment })).rejects.toThrow(command);
    await expect(locateCheckpoint({ ...request, environment })).rejects.toThrow(
      /No checkpoint of Wan 1.4B is in .*\/hub; get Wan-AI/,
    );
    const snapshot = await intoCache(join(dir, "hub"), repository, tinyCheckpoint);
    await unlink(join(snapshot, "Wan2.1_VAE.pth"));
    const half = locateCheckpoint({ ...request, environment });
    await expect(half).rejects.toThrow(`but Wan2.1_VAE.pth is missing; complete it with \`${command}\`.`);
  });

  test("a folder may be a repository's in the cache; a file is called one", async () => {
    const snapshot = await intoCache(dir, repository, join(golden, "diffusers"));
    expect((await openCheckpoint(join(golden, "diffusers"))).layout).toBe("diffusers");
    expect((await openCheckpoint(dirname(dirname(snapshot)))).directory).toBe(snapshot);
    await expect(openCheckpoint(join(tinyCheckpoint, "config.json"))).rejects.toThrow("it is a file; name the folder");
  });

  test("a complete snapshot without refs/main is taken, with a word, if it is the only one", async () => {
    const environment = { HF_HOME: dir };
    const snapshot = await intoCache(join(dir, "hub"), repository, tinyCheckpoint);
    const folder = dirname(dirname(snapshot));
    const other = join(folder, "snapshots", "d".repeat(40));
    await mkdir(other);
    await unlink(join(folder, "refs/main"));
    const notes: string[] = [];
    const locate = () => locateCheckpoint({ ...request, environment, onNote: (note) => notes.push(note) });
    expect((await locate()).directory).toBe(snapshot);
    expect(notes).toEqual([`${folder} has no refs/main: its only complete snapshot is taken, ${snapshot}.`]);
    await cp(tinyCheckpoint, other, { recursive: true });
    await expect(locate()).rejects.toThrow("has 2 complete snapshots and no refs/main that chooses one");
  });

  test("refs/main can only name a snapshot", async () => {
    const snapshot = await intoCache(join(dir, "hub"), repository, tinyCheckpoint);
    await cp(tinyCheckpoint, join(dir, "outside"), { recursive: true });
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
