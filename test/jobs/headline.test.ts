import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { execa } from "execa";
import { afterAll, beforeAll, describe, expect, it } from "vitest";

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "ditrun-test-"));
});
afterAll(() => rm(folder, { recursive: true, force: true }));

function headline(...args: string[]) {
  return execa("node", ["--import", "tsx", "bench/headline.ts", ...args], {
    reject: false,
    stdin: "ignore",
    env: { DITRUN_KERNELS: "", MASTER_PORT: "" },
  });
}

describe("bench/headline.ts", () => {
  it("measures the DiT and the links on two CPU workers", { timeout: 180_000 }, async () => {
    const out = join(folder, "headline.json");
    const args = ["--gpus", "2", "--device", "cpu", "--only", "dit,links", "--out", out];
    const { exitCode, stdout, stderr } = await headline(...args);
    expect(exitCode, stderr).toBe(0);
    expect(stdout).toContain("to beat / wanted");
    const { dit, wan, links, failures, gpus } = JSON.parse(await readFile(out, "utf8"));
    expect([gpus, failures, wan]).toEqual([2, [], []]);
    expect(dit.map(({ plan, precision }: Record<string, unknown>) => `${plan} ${precision}`)).toEqual([
      "1 GPU fp8",
      "cp2 fp8",
      "tp2 fp8",
    ]);
    for (const { plan, latencyMs, speedup, relL2 } of dit) {
      expect(speedup).toBeCloseTo(dit[0].latencyMs.median / latencyMs.median, 9);
      if (plan === "1 GPU") expect(relL2).toBeNull();
      else expect(relL2).toBeGreaterThan(0);
    }
    expect(new Set(links.map(({ pattern }: Record<string, unknown>) => pattern)).size).toBe(3);
  });

  it("names what failed or did not fit in the budget, and exits with 1", async () => {
    const { exitCode, stdout } = await headline("--gpus", "2", "--device", "cpu", "--budget", "0.5");
    expect(exitCode).toBe(1);
    for (const piece of ["DiT cp2 fp8", "DiT accuracy fp8", "Wan tiny 64*48 cfg2 bf16, 2 steps", "links peer"]) {
      expect(stdout).toContain(`Failed: ${piece}: not run, the budget of 0.5 s was spent`);
    }
  });

  it.for([
    [["--gpus", "3"], "--gpus must be 1, 2, 4 or 8."],
    [["--gpus", "2", "--only", "dit,all"], "--only takes dit, wan-1.3b, wan-14b, links"],
  ] as const)("refuses %j", async ([args, message]) => {
    const { exitCode, stderr } = await headline(...args);
    expect(stderr).toContain(message);
    expect(exitCode).toBe(2);
  });
});
