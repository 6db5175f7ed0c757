import { execa } from "execa";
import { describe, expect, it } from "vitest";
import { documentSchemas } from "../../src/views/documents.js";

function links(args: readonly string[]) {
  return execa("node", ["bin/ditrun.js", "links", "--device", "cpu", ...args], {
    reject: false,
    stdin: "ignore",
    env: { DITRUN_KERNELS: "", MASTER_PORT: "" },
  });
}

describe("ditrun links", () => {
  // The workers check every message's end, so a run that ends well has carried the right values.
  it.for([2, 3])("times every pattern and size between %i workers", async (workers) => {
    const args = ["--nproc", String(workers), "--sizes", "64,1K,64K", "--repetitions", "3", "--json"];
    const { exitCode, stdout, stderr } = await links(args);
    expect(stderr).toContain("GB/s each way");
    expect(exitCode).toBe(0);
    const { worldSize, results } = documentSchemas.links.parse(JSON.parse(stdout));
    expect(worldSize).toBe(workers);
    const cases = ["all-reduce", "ring shift", "halo"].flatMap((pattern) =>
      [64, 1024, 65536].map((bytes) => ({ transport: "peer", pattern, bytes })),
    );
    expect(results).toMatchObject(cases);
    for (const { pattern, bytes, microseconds, gigabytesPerSecond } of results) {
      const messages: Record<string, number> = {
        "all-reduce": (2 * (workers - 1)) / workers,
        "ring shift": 1,
        halo: Math.min(2, workers - 1),
      };
      const sent = bytes * (messages[pattern] ?? Number.NaN);
      expect(microseconds).toBeGreaterThan(0);
      expect(gigabytesPerSecond).toBeCloseTo(sent / microseconds / 1e3, 6);
    }
  });

  it("times TCP where GPUs have NCCL, and its own sum beside it", async () => {
    const args = ["--nproc", "3", "--sizes", "64,64K", "--repetitions", "2", "--transports", "peer,nccl", "--json"];
    const { exitCode, stdout, stderr } = await links(args);
    expect(stderr).toMatch(/^NCCL all-reduce +64 +[\d.]+ +[\d.]+$/m);
    expect(exitCode).toBe(0);
    const nccl = ["all-reduce", "ring shift", "halo", "NCCL all-reduce"];
    const patternsOf = { peer: nccl.slice(0, 3), nccl };
    const cases = Object.entries(patternsOf).flatMap(([transport, patterns]) =>
      patterns.flatMap((pattern) => [64, 65536].map((bytes) => ({ transport, pattern, bytes }))),
    );
    expect(JSON.parse(stdout).results).toMatchObject(cases);
  });

  it.for([
    [["--nproc", "33", "--dry-run"], "a sum over peer memory takes at most 32: give --nproc 32 or less"],
    [["--nproc", "1"], "There are no links within 1 worker"],
    [["--nproc", "2", "--sizes", "64,3"], '--sizes has "3"'],
    [["--nproc", "2", "--transports", "tcp"], '--transports has "tcp"'],
    [["--nproc", "2", "--model", "dit"], "links takes no --model: leave it out."],
  ] as const)("refuses %j", async ([args, message]) => {
    const { exitCode, stderr } = await links(args);
    expect(stderr).toContain(message);
    expect(exitCode).toBe(2);
  });
});
