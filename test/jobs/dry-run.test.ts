import { cpSync, mkdtempSync, readFileSync, rmSync, truncateSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { execa } from "execa";
import { afterAll, describe, expect, test } from "vitest";
import { builtKernels, packageRoot, tinyCheckpoint } from "../../src/paths.js";

const folder = mkdtempSync(join(tmpdir(), "ditrun-dry-"));
afterAll(() => rmSync(folder, { recursive: true }));

function ditrun(line: string, env: Record<string, string> = {}) {
  const args = [join(packageRoot, "bin", "ditrun.js"), ...line.split(" ")];
  return execa(process.execPath, args, { reject: false, env: { DITRUN_KERNELS: builtKernels("cpu"), ...env } });
}

const generate = `wan generate --model tiny --prompt x --steps 3 --size 32*32 --frames 1 --device cpu --out ${folder}/v/`;

describe("--dry-run finds what the run would", () => {
  test.each(["--cp 2", "--fp8 --bf16-steps 1 --memory 0.4"])("the peak of memory: %s", async (more) => {
    const line = `${generate} ${more}`;
    const file = join(folder, "run.json");
    const dry = await ditrun(`${line} --dry-run --json`);
    expect((await ditrun(`${line} --json ${file}`)).exitCode).toBe(0);
    const { ranks } = JSON.parse(readFileSync(file, "utf8"));
    const { memory } = JSON.parse(dry.stdout);
    const needed = ranks.map((rank: { memory: { neededBytes: number } }) => rank.memory.neededBytes);
    expect(memory.neededBytes).toBe(Math.max(...needed));
    expect(memory.encoderFirst).toBe(ranks[0].memory.encoderFirst);
    expect(memory.encoderFirst).toBe(more.includes("--memory"));
  });

  test("memory that is not there", async () => {
    const dry = await ditrun(`${generate} --memory 0.001 --dry-run`);
    const run = await ditrun(`${generate} --memory 0.001`);
    const failure = /needs .* of device memory.*/;
    expect([dry.exitCode, failure.exec(dry.stderr)?.[0]]).toEqual([run.exitCode, failure.exec(run.stderr)?.[0]]);
    expect(dry.exitCode).toBe(3);
  });

  test("a file that was cut off", async () => {
    const copy = join(folder, "cut");
    cpSync(tinyCheckpoint, copy, { recursive: true });
    truncateSync(join(copy, "Wan2.1_VAE.pth"), 1000);
    const { exitCode, stderr } = await ditrun(`${generate.replace("--model tiny ", "")} --ckpt-dir ${copy} --dry-run`);
    expect(stderr).toContain("Wan2.1_VAE.pth");
    expect(exitCode).toBe(2);
  });

  test("a kernel module that is not there", async () => {
    const { exitCode, stderr } = await ditrun(`${generate} --dry-run`, { DITRUN_KERNELS: "/nowhere/k.so" });
    expect(stderr).toContain("DITRUN_KERNELS names /nowhere/k.so, which does not exist.");
    expect(exitCode).toBe(3);
  });

  test.each(["profile", "wan profile --model tiny"])("%s is rehearsed on all its workers", async (command) => {
    const { stdout, exitCode } = await ditrun(`${command} --nproc 2 --device cpu --dry-run --json`);
    expect(exitCode).toBe(0);
    const { memory } = JSON.parse(stdout);
    expect(memory.neededBytes).toBeGreaterThan(2 ** 20);
    expect(memory.neededBytes).toBeLessThan(memory.availableBytes);
  });
});
