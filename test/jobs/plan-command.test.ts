import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { execa } from "execa";
import { afterAll, expect, test } from "vitest";
import { builtKernels, packageRoot } from "../../src/paths.js";
import { documentSchemas } from "../../src/views/documents.js";

const folder = mkdtempSync(join(tmpdir(), "ditrun-plan-"));
afterAll(() => rmSync(folder, { recursive: true }));

function ditrun(line: string) {
  const args = [join(packageRoot, "bin", "ditrun.js"), ...line.split(" ")];
  const env = { DITRUN_KERNELS: builtKernels("cpu"), XDG_CACHE_HOME: folder, COLUMNS: "80" };
  return execa(process.execPath, args, { reject: false, cwd: folder, env });
}

test("ditrun plan ranks, writes a plan that runs, and its document keeps its schema", async () => {
  const line = "plan --model wan-tiny --gpu h100 --nproc 2 --hosts 2 --dtype bf16 --out best.yaml --json plan.json";
  const { exitCode, stderr } = await ditrun(line);
  expect([exitCode, stderr]).toEqual([0, expect.stringContaining("Verdict: cfg2×cp2 in bf16 is ")]);
  const document = documentSchemas.plan.parse(JSON.parse(readFileSync(join(folder, "plan.json"), "utf8")));
  expect(document).toMatchObject({ workers: 4, hosts: 2, calibrated: false, device: { name: "NVIDIA H100" } });
  expect(document.plans.map(({ stepMs }) => stepMs ?? 0)).toEqual(
    document.plans.map(({ stepMs }) => stepMs ?? 0).toSorted((a, b) => a - b),
  );
  expect(readFileSync(join(folder, "best.yaml"), "utf8")).toContain("mesh:\n  cfg: 2\n  cp: 2\n  tp: 1\n");
  const run = await ditrun("--plan best.yaml wan profile --model wan-tiny --frames 1 --device cpu --dry-run");
  expect([run.exitCode, run.stdout]).toEqual([0, expect.stringMatching(/^best +4 +2 +2 +1 /m)]);
});

test("ditrun plan --calibrate measures this machine, and what comes after uses it", async () => {
  const { exitCode, stderr } = await ditrun("plan --calibrate --device cpu");
  expect([exitCode, stderr]).toEqual([0, expect.stringContaining("is used from now on.")]);
  const devices = join(folder, "ditrun", "devices");
  const [file = ""] = readdirSync(devices);
  expect(existsSync(join(devices, file))).toBe(true);
  const { device, links } = JSON.parse(readFileSync(join(devices, file), "utf8"));
  for (const { rates } of device.attention) {
    for (const dtype of ["fp32", "bf16", "fp16", "e4m3"]) expect(rates[dtype]).toBeGreaterThan(0);
  }
  expect(Object.keys(device.products).toSorted()).toEqual(["bf16", "e4m3", "fp16", "fp32"]);
  expect(links.peerReads.gigabytesPerSecond).toBeGreaterThan(0);
  expect(links.source).toContain("measured on this machine");
  // Its file is a --gpu too.
  const named = await ditrun(`plan --gpu ${join(devices, file)} --model dit-tiny --nproc 2 --dtype bf16`);
  expect([named.exitCode, named.stdout]).toEqual([0, expect.stringContaining("measured on this machine")]);
  const profile = await ditrun("--plan auto --nproc 2 profile --iterations 1 --warmup 0 --device cpu --json p.json");
  expect(profile.stderr).toMatch(/The planner chose \S+: [\d.]+ ms a forward predicted \(.+\), .+\./);
  expect(profile.stderr).toMatch(/Predicted: [\d.]+ ms, [\d.]+ % (?:less|more) than measured; .+ as calibrated\./);
  const { predicted } = documentSchemas.profile.parse(JSON.parse(readFileSync(join(folder, "p.json"), "utf8")));
  expect(predicted.calibrated).toBe(true);
});
