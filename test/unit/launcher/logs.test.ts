import {
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { hostname, tmpdir } from "node:os";
import { join } from "node:path";
import { PassThrough, Writable } from "node:stream";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { LineReader } from "../../../src/launcher/lines.js";
import { openLog } from "../../../src/launcher/logs.js";
import { packageCommit } from "../../../src/version.js";

let folder = "";
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "ditrun-logs-"));
});
afterEach(() => rmSync(folder, { recursive: true }));

const records = () =>
  readFileSync(join(folder, "launcher.log"), "utf8")
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line));

test("stderr has sentences of the level, the file has all of them as JSON", () => {
  const stderr = new PassThrough();
  const { logger } = openLog("warn", folder, { stderr });
  logger.warn("Careful.");
  logger.debug("A detail.");
  expect(String(stderr.read())).toBe("ditrun: Careful.\n");
  expect(records().slice(1)).toMatchObject([{ msg: "Careful." }, { msg: "A detail." }]);
});

test("what may wait for a program's start is told then, in order, and with the time at which it was said", () => {
  vi.useFakeTimers({ now: 1000 });
  try {
    const stderr = new PassThrough();
    const { logger, settle } = openLog("info", folder, { stderr, waits: true });
    logger.info("One.");
    logger.info("Two.");
    expect(stderr.read()).toBeNull();
    vi.setSystemTime(1050);
    settle();
    expect(String(stderr.read())).toBe("ditrun: One.\nditrun: Two.\n");
    expect(records().slice(1)).toMatchObject([{ time: 1000 }, { time: 1000 }]);
    logger.info("Three.");
    expect(String(stderr.read())).toBe("ditrun: Three.\n");
  } finally {
    vi.useRealTimers();
  }
});

test("a warning does not wait, nor anything for longer than a tenth of a second", () => {
  vi.useFakeTimers();
  try {
    const stderr = new PassThrough();
    const first = openLog("info", undefined, { stderr, waits: true });
    first.logger.info("One.");
    first.logger.warn("Careful.");
    expect(String(stderr.read())).toBe("ditrun: One.\nditrun: Careful.\n");
    openLog("info", undefined, { stderr, waits: true }).logger.info("Two.");
    expect(stderr.read()).toBeNull();
    vi.advanceTimersByTime(100);
    expect(String(stderr.read())).toBe("ditrun: Two.\n");
  } finally {
    vi.useRealTimers();
  }
});

test("the file begins with what was started, by which version, and where; nobody else may read it", () => {
  openLog("warn", folder, { stderr: new PassThrough() }).worker("job", 0).close();
  expect(records()).toMatchObject([
    {
      msg: expect.stringMatching(/^ditrun \d+\.\d+\.\d+ starts on /),
      host: hostname(),
      arguments: process.argv.slice(2),
      node: process.version,
    },
  ]);
  for (const name of ["launcher.log", "job/rank-0.stderr.log", "job/rank-0.stdout.log"]) {
    expect(statSync(join(folder, name)).mode & 0o777).toBe(0o600);
  }
});

test("lines that are looked for are kept together too, of all ranks, and anew for each launch", () => {
  const nobody = new PassThrough();
  const goes = () => ({ shown: false, kept: false });
  const output = {
    stdout: nobody,
    stderr: nobody,
    format: "text",
    goes,
    filters: { stdout: ["loss", "a,b"] },
  } as const;
  for (const word of ["old", "new"]) {
    const log = openLog("silent", folder, { stderr: nobody, output });
    const ranks = [0, 1].map((rank) => log.worker("job", rank));
    for (const rank of ranks) {
      void rank.lines("stdout", [`${word} loss`, "nothing", `${word} a,b`]);
      void rank.lines("stderr", ["loss"]);
      rank.close();
    }
  }
  const names = readdirSync(join(folder, "job"));
  expect(names).toEqual(["filtered.stdout.log"]);
  const lines = readFileSync(join(folder, "job", "filtered.stdout.log"), "utf8");
  expect(lines).toBe("[rank 0] new loss\n[rank 0] new a,b\n[rank 1] new loss\n[rank 1] new a,b\n");
});

test("a full disk is said once and stops nothing", () => {
  symlinkSync("/dev/full", join(folder, "launcher.log"));
  const stderr = new PassThrough();
  const { logger } = openLog("info", folder, { stderr });
  logger.info("One.");
  logger.info("Two.");
  const lines = String(stderr.read()).trim().split("\n");
  expect(lines.filter((line) => line.includes("cannot be written any more: the disk is full"))).toHaveLength(1);
  expect(lines).toEqual(expect.arrayContaining(["ditrun: One.", "ditrun: Two."]));
});

test("so is a worker's file that cannot be opened", () => {
  mkdirSync(join(folder, "job", "rank-0.stderr.log"), { recursive: true });
  const stderr = new PassThrough();
  const worker = openLog("info", folder, { stderr }).worker("job", 0);
  worker.lines("stderr", ["a line"]);
  const said = String(stderr.read());
  expect(said).toContain("rank-0.stderr.log cannot be written: it is a directory.");
  expect(said).toContain("[rank 0] a line\n");
});

test("a folder that cannot be one is a sentence", () => {
  writeFileSync(join(folder, "file"), "");
  expect(() => openLog("info", join(folder, "file"))).toThrow(/file" cannot be written: something else of that name/);
});

test("lines reach a terminal harmless, and the file as they came", () => {
  const stderr = new PassThrough();
  const worker = openLog("info", folder, { stderr }).worker("job", 3);
  worker.lines("stderr", ["\x1b[2Jone", "two"]);
  worker.close();
  expect(String(stderr.read())).toBe("[rank 3] \\x1b[2Jone\n[rank 3] two\n");
  expect(readFileSync(join(folder, "job", "rank-3.stderr.log"), "utf8")).toBe("\x1b[2Jone\ntwo\n");
});

test("what a crash leaves on its last line is in the file, though its pipe stays open", () => {
  const worker = openLog("info", folder, { stderr: new PassThrough() }).worker("job", 0);
  const pipe = new PassThrough();
  const reader = new LineReader(pipe, (lines) => worker.lines("stderr", lines));
  pipe.write("one\r\ntwo without an end");
  return new Promise<void>((resolve) => setImmediate(resolve)).then(() => {
    reader.finish();
    worker.close();
    expect(readFileSync(join(folder, "job", "rank-0.stderr.log"), "utf8")).toBe("one\ntwo without an end\n");
  });
});

/** A stream whose reader takes one piece whenever it is told to. */
function slowReader() {
  const chunks: string[] = [];
  const release: (() => void)[] = [];
  const stream = new Writable({
    decodeStrings: false,
    write(chunk: string, _, done) {
      chunks.push(chunk);
      release.push(done);
    },
  });
  const readAll = () => {
    for (let next = release.shift(); next !== undefined; next = release.shift()) next();
  };
  return { chunks, stream, readAll };
}
const longLine = "x".repeat(1000);

test("a reader of stderr that does not read costs a bounded amount of memory and time, and is told what it missed", async () => {
  const { chunks, stream, readAll } = slowReader();
  const worker = openLog("info", undefined, { stderr: stream }).worker("job", 0);
  // It is waited for once; a wait for each line would take hours.
  for (let i = 0; i < 20_000; i++) await worker.lines("stdout", [longLine]);
  expect(stream.writableLength).toBeLessThan(5 * 2 ** 20);
  readAll();
  worker.lines("stdout", ["after it"]);
  readAll();
  const kept = chunks.filter((chunk) => chunk.startsWith("[rank 0] x")).length;
  expect(chunks.slice(-2)).toEqual([
    `ditrun: ${20_000 - kept} lines are missing here, since nobody read them.\n`,
    "[rank 0] after it\n",
  ]);
});

test("a reader that is only slow misses nothing", async () => {
  const { chunks, stream, readAll } = slowReader();
  const worker = openLog("info", undefined, { stderr: stream }).worker("job", 0);
  const reading = setInterval(readAll, 20);
  for (let i = 0; i < 10_000; i++) await worker.lines("stdout", [longLine]);
  clearInterval(reading);
  readAll();
  expect(chunks).toHaveLength(10_000);
});

test("the file says which variables matter, and of a secret only that it is set; a commit, where it is known", () => {
  vi.stubEnv("NCCL_DEBUG", "INFO");
  vi.stubEnv("CUDA_VISIBLE_DEVICES", "0,1");
  vi.stubEnv("DITRUN_KERNELS", "");
  vi.stubEnv("HF_TOKEN", "hf_secret");
  vi.stubEnv("EDITOR", "vi");
  openLog("warn", folder, { stderr: new PassThrough() });
  vi.unstubAllEnvs();
  const text = readFileSync(join(folder, "launcher.log"), "utf8");
  const [{ environment, commit }] = records();
  const noted = { NCCL_DEBUG: "INFO", CUDA_VISIBLE_DEVICES: "0,1", DITRUN_KERNELS: "", HF_TOKEN: "(set, not shown)" };
  expect(environment).toMatchObject(noted);
  expect(environment).not.toHaveProperty("EDITOR");
  expect(text).not.toContain("hf_secret");
  expect(commit).toBe(packageCommit());
});

test("a quiet console has errors alone; colours are those of warnings and errors", () => {
  const stderr = new PassThrough();
  const log = openLog("error", folder, { stderr, rankLines: false, colour: true });
  log.logger.info("Going on.");
  log.worker("job", 1).lines("stderr", ["a line"]);
  log.logger.error("Gone.");
  expect(String(stderr.read())).toBe("\x1b[31mditrun:\x1b[39m Gone.\n");
  expect(readFileSync(join(folder, "job", "rank-1.stderr.log"), "utf8")).toBe("a line\n");
  openLog("warn", undefined, { stderr, colour: true }).logger.warn("Careful.");
  expect(String(stderr.read())).toBe("\x1b[33mditrun:\x1b[39m Careful.\n");
});
