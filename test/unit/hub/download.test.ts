import { createHash } from "node:crypto";
import {
  appendFile,
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  readlink,
  realpath,
  rm,
  symlink,
  unlink,
  writeFile,
} from "node:fs/promises";
import { tmpdir } from "node:os";
import { basename, dirname, join } from "node:path";
import { execa } from "execa";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { openHub } from "../../../src/hub/hub-api.js";
import { fetchVerified } from "../../../src/hub/verified-file.js";
import { locateCheckpoint, openCheckpoint } from "../../../src/models/wan/locate.js";
import { goldenCheckpoints } from "../worker/wan/golden.js";
import { startHub, type TestHub } from "./test-hub.js";

// The pauses between attempts, shortened.
vi.mock("node:timers/promises", async (original) => {
  const timers = await original<typeof import("node:timers/promises")>();
  return { ...timers, setTimeout: (milliseconds: number) => timers.setTimeout(milliseconds / 20) };
});

const repository = "Wan-AI/Wan2.1-T2V-1.3B";
let dir = "";
beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), "ditrun-checkpoint-"));
});
afterEach(() => rm(dir, { recursive: true }));

const request = { model: "1.4B", repositories: [repository, `${repository}-Diffusers`], download: false } as const;

describe("--download", () => {
  let hub: TestHub;
  beforeEach(async () => {
    hub = await startHub(repository, goldenCheckpoints.original);
  });
  afterEach(() => hub.close());

  const download = (
    more: Record<string, string> = {},
    onProgress?: (p: { doneBytes: number; totalBytes: number }) => void,
    onNote?: (note: string) => void,
  ) =>
    locateCheckpoint({
      ...request,
      download: true,
      environment: { HF_HOME: dir, HF_ENDPOINT: hub.endpoint, ...more },
      ...(onProgress ? { onProgress } : {}),
      ...(onNote ? { onNote } : {}),
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
      expect(
        (await readFile(join(found.directory, file))).equals(await readFile(join(goldenCheckpoints.original, file))),
      ).toBe(true);
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
    expect(file.equals(await readFile(join(goldenCheckpoints.original, "Wan2.1_VAE.pth")))).toBe(true);
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
    const ranges = hub.requests.flatMap((r) =>
      r.path.endsWith("VAE.pth") && r.range !== "bytes=0-0" ? [r.range] : [],
    );
    // What was there is kept: nothing is asked for from the beginning.
    expect([...new Set(ranges)]).toEqual([expect.stringMatching(/^bytes=[1-9]\d*-3774866$/)]);
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

  test("two at once fetch each file once, and every blob is what its name says", async () => {
    const notes: string[] = [];
    const [one, two] = await Promise.all([download(), download({}, undefined, (note) => notes.push(note))]);
    expect(one.directory).toBe(two.directory);
    const blobs = join(folder(), "blobs");
    for (const name of await readdir(blobs)) {
      const bytes = await readFile(join(blobs, name));
      const hash = name.length === 64 ? createHash("sha256") : createHash("sha1").update(`blob ${bytes.length}\0`);
      expect(hash.update(bytes).digest("hex")).toBe(name);
    }
    // A whole file is asked for without a range, or from 0 on; one byte is the question for its size.
    const fetched = hub.requests.filter(({ path, range }) => path.endsWith("VAE.pth") && range !== "bytes=0-0");
    expect(fetched.length).toBe(1);
    expect(await readFile(join(folder(), "refs/main"), "utf8")).toBe(hub.commit);
    for (const name of await readdir(folder(), { recursive: true })) expect(name).not.toMatch(/\.(tmp|incomplete)$/);
  });

  test("another process that holds the lock is waited for; the lock of a killed one is free", async () => {
    const oid = createHash("sha256")
      .update(await readFile(join(goldenCheckpoints.original, "Wan2.1_VAE.pth")))
      .digest("hex");
    const lock = join(dir, "hub/.locks", `models--${repository.replace("/", "--")}`, `${oid}.lock`);
    await mkdir(dirname(lock), { recursive: true });
    // As huggingface_hub does: flock(1) takes flock(2).
    const command = ["--no-fork", lock, "sh", "-c", "echo held; exec sleep 1000"];
    const holder = execa("flock", command, { reject: false, stdin: "ignore" });
    await new Promise((resolve) => holder.stdout.once("data", resolve));
    const notes: string[] = [];
    const done = download({}, undefined, (note) => notes.push(note));
    await vi.waitFor(() => expect(notes).toHaveLength(1), { timeout: 30_000, interval: 20 });
    expect(notes).toEqual(["Another process is downloading Wan2.1_VAE.pth: waiting for it."]);
    expect(await readdir(join(folder(), "blobs"))).not.toContain(oid);
    holder.kill("SIGKILL");
    expect((await done).layout).toBe("original");
  });

  test("what another wrote into the part of a file is found, and the file fetched anew in the same run", async () => {
    hub.cutAfter("Wan2.1_VAE.pth", [1_000_000, 0, 0, 0, 0, 0]);
    await expect(download()).rejects.toThrow("was cut off");
    const blobs = join(folder(), "blobs");
    const [part = ""] = (await readdir(blobs)).filter((name) => name.endsWith(".incomplete"));
    await appendFile(join(blobs, part), "of another");
    expect((await download()).layout).toBe("original");
    const [name = ""] = part.split(".");
    expect(
      createHash("sha256")
        .update(await readFile(join(blobs, name)))
        .digest("hex"),
    ).toBe(name);
  });

  test("space is looked at before anything is fetched", async () => {
    hub.addListing({ type: "file", path: "huge.safetensors", size: 2 ** 52, oid: "0".repeat(40) });
    await expect(download()).rejects.toThrow(/ GB free, but the download needs 4503\d{3}\.\d GB more; free some space/);
    expect(hub.requests.filter(({ path }) => path.includes("/resolve/"))).toEqual([]);
  });

  test("HF_HUB_OFFLINE keeps it from asking", async () => {
    await expect(download({ HF_HUB_OFFLINE: "1" })).rejects.toThrow(
      /^HF_HUB_OFFLINE is set, so --download asks no net/,
    );
    await expect(download({ TRANSFORMERS_OFFLINE: "true" })).rejects.toThrow("HF_HUB_OFFLINE is set");
    expect(hub.requests).toEqual([]);
    await download({ HF_HUB_OFFLINE: "0" });
    // What is there needs no network.
    expect((await download({ HF_HUB_OFFLINE: "1" })).layout).toBe("original");
  });

  test("--verify finds a blob that is not what its name says, and with --download fetches it anew", async () => {
    const environment = { HF_HOME: dir, HF_ENDPOINT: hub.endpoint };
    const { directory } = await download();
    const located = (more: { download: boolean }) =>
      locateCheckpoint({ ...request, verify: true, environment, ...more });
    expect((await located({ download: false })).directory).toBe(directory);
    const vae = join(directory, "Wan2.1_VAE.pth");
    const blob = await realpath(vae);
    const bytes = await readFile(blob);
    await writeFile(blob, bytes.with(5000, 1 ^ (bytes[5000] ?? 0)));
    expect((await download()).directory).toBe(directory);
    await expect(located({ download: false })).rejects.toThrow(
      `are not what their hashes say: Wan2.1_VAE.pth (blobs/${basename(blob)}); fetch them anew with --verify --download.`,
    );
    await expect(openCheckpoint(directory, true)).rejects.toThrow("not what their hashes say");
    expect((await located({ download: true })).directory).toBe(directory);
    expect((await readFile(vae)).equals(bytes)).toBe(true);
    await expect(openCheckpoint(goldenCheckpoints.original, true)).rejects.toThrow("has no such names");
  });
});

describe("a hub that lies", () => {
  let hub: TestHub;
  beforeEach(async () => {
    hub = await startHub(repository, goldenCheckpoints.original);
  });
  afterEach(() => hub.close());

  const download = (HF_TOKEN = "") =>
    locateCheckpoint({
      ...request,
      download: true,
      environment: { HF_HUB_CACHE: join(dir, "cache"), HF_ENDPOINT: hub.endpoint, HF_TOKEN },
    });
  const info = (url: URL) => url.pathname.includes("/revision/");
  const tree = (url: URL) => url.pathname.includes("/tree/");
  const file = (path: string, more: Record<string, unknown> = {}) => ({
    ...{ type: "file", path, size: 5, oid: "1".repeat(40), ...more },
  });

  const commits: [unknown, string][] = [
    [{ sha: "../../../victim" }, 'its sha is "../../../victim"'],
    [{ sha: "/tmp/victim" }, 'its sha is "/tmp/victim"'],
    [{ sha: "a\u0000b" }, 'its sha is "a\\u0000b"'],
    [{ sha: "A".repeat(40) }, "its sha is"],
    [{ sha: "a".repeat(5000) }, "its sha is"],
    [{ sha: 5 }, "its answer has no sha"],
    [{}, "its answer has no sha"],
    [null, "its answer has no sha"],
    [[], "its answer has no sha"],
  ];
  test.each(commits)("a commit of %j", async (body, why) => {
    await writeFile(join(dir, "victim"), "mine");
    hub.answerWith((url) => (info(url) ? { body } : undefined));
    await expect(download()).rejects.toThrow(`The hub at ${hub.endpoint} names no commit of ${repository} (${why}`);
    expect(await readdir(dir)).toEqual(["victim"]);
  });

  const listings: [unknown, string | RegExp][] = [
    [[file("../x.json")], "lists the file ../x.json (a path out of the repository), which cannot be right"],
    [[file("a/../../x.json")], "cannot be right"],
    [[file("/etc/x.json")], "cannot be right"],
    [[file("./x.json")], "cannot be right"],
    [[file("a//b.json")], "cannot be right"],
    [[file("\u001b[2J.json")], "lists the file \\u001b[2J.json"],
    [[file("a\n.json")], "lists the file a\\n.json"],
    [[file(`${"x".repeat(300)}.json`)], "cannot be right"],
    [[file("a.json"), file("a.json")], "a.json (listed twice"],
    [[file("a.json"), file("a.json/b.json")], "a.json/b.json (below another file)"],
    [[file("a.json", { oid: "../../../x" })], "of the id ../../../x"],
    [[file("a.json", { oid: "A".repeat(40) })], "of the id"],
    [[file("a.json", { lfs: { oid: "1".repeat(40).concat("/"), size: 5 } })], "of the id"],
    [[file("a.json", { size: -5 })], "without a size"],
    [[file("a.json", { size: "5" })], "without a size"],
    [[file("a.json", { size: 2 ** 60 })], "without a size"],
    [{}, "answers with no list of the files"],
    [[null], "answers with no list of the files"],
    [Array.from({ length: 10_001 }, (_, i) => file(`${i}.json`)), "one of too many"],
  ];
  test.each(listings)("a list of files, %#", async (body, why) => {
    hub.answerWith((url) => (tree(url) ? { body } : undefined));
    await expect(download()).rejects.toThrow(why);
    expect(await readdir(dir)).toEqual([]);
  });

  test("answers without an end, and answers that are no JSON", async () => {
    hub.answerWith((url) => (tree(url) ? { endless: `[${" ".repeat(2 ** 20)}` } : undefined));
    await expect(download()).rejects.toThrow("sends more than 32 MiB");
    const next = (href: string) => ({ body: [], headers: { link: `<${href}>; rel="next"` } });
    hub.answerWith((url) => (tree(url) ? next(url.href) : undefined));
    await expect(download()).rejects.toThrow("on more than 200 pages");
    hub.answerWith((url) => (info(url) ? { raw: "<html>" } : undefined));
    await expect(download()).rejects.toThrow("did not answer in JSON");
  });

  test("a file that is longer than it was listed is not written further", async () => {
    const headers = { "content-range": "bytes 0-0/5", etag: '"1"' };
    hub.answerWith((url) => {
      if (tree(url)) return { body: [file("config.json")] };
      return url.pathname.includes("/resolve/") ? { endless: "x".repeat(2 ** 16), status: 206, headers } : undefined;
    });
    await expect(download()).rejects.toThrow("The server sends more than the 5 bytes of");
    // Nothing is left that would keep the process alive.
    await vi.waitFor(async () => expect(await hub.connections()).toBe(0), { timeout: 20_000, interval: 50 });
    const [part = ""] = await readdir(join(dir, "cache", `models--${repository.replace("/", "--")}`, "blobs"));
    expect(part).toMatch(/\.incomplete$/);
  });

  test("the token goes to the hub alone", async () => {
    const other = await startHub(repository, goldenCheckpoints.original);
    const { fetch, close } = openHub(hub.endpoint, "hf_secret");
    await (await fetch(`${other.endpoint}/`)).text();
    close();
    expect(other.requests.map(({ token }) => token)).toEqual([""]);
    other.requests.length = 0;
    const elsewhere = (url: URL) => `${other.endpoint}${url.pathname}`;
    hub.answerWith((url) =>
      tree(url) ? { body: [], headers: { link: `<${elsewhere(url)}>; rel="next"` } } : undefined,
    );
    await expect(download("hf_secret")).rejects.toThrow(`has its list go on at ${other.endpoint}/`);
    expect(other.requests).toEqual([]);
    // Files may be elsewhere, and are.
    hub.answerWith((url) =>
      url.pathname.includes("/resolve/") ? { status: 302, headers: { location: elsewhere(url) } } : undefined,
    );
    expect((await download("hf_secret")).layout).toBe("original");
    expect(other.requests.length).toBeGreaterThan(0);
    expect(other.requests.filter(({ token }) => token !== "")).toEqual([]);
    expect(hub.requests.every(({ token }) => token === "Bearer hf_secret")).toBe(true);
    await other.close();
  });
});

describe("one file", () => {
  const text = "twelve bytes";
  const fetched = (openRemote: () => Promise<Blob>, size = text.length) =>
    fetchVerified({
      target: join(dir, "file"),
      expected: { size, oid: createHash("sha256").update(text).digest("hex") },
      resumes: true,
      label: "the file",
      open: openRemote,
      onBytes: () => undefined,
    });

  test("is refused before it is read where the server has another size", async () => {
    const whole = async () => new Blob([text]);
    await expect(fetched(whole, 20)).rejects.toThrow("should have 20 bytes, but the server offers 12");
  });

  test("comes through any number of broken connections that each bring a byte", async () => {
    const oneByte = async () =>
      Object.assign(new Blob([text]), { slice: (start = 0) => new Blob([text.slice(start, start + 1)]) });
    await fetched(oneByte);
    expect(await readFile(join(dir, "file"), "utf8")).toBe(text);
  });
});
