import { chmodSync, mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { execa } from "execa";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { cpuLimit } from "../../../src/doctor/checks/cpu-limit.js";
import { driver } from "../../../src/doctor/checks/driver.js";
import { gpus } from "../../../src/doctor/checks/gpus.js";
import { hubCacheCheck } from "../../../src/doctor/checks/hub-cache.js";
import { cublaslt } from "../../../src/doctor/checks/libraries.js";
import { lockedMemory } from "../../../src/doctor/checks/locked-memory.js";
import { memory } from "../../../src/doctor/checks/memory.js";
import { cpuModule } from "../../../src/doctor/checks/modules.js";
import { numa } from "../../../src/doctor/checks/numa.js";
import { openFiles } from "../../../src/doctor/checks/open-files.js";
import { cpuPeers } from "../../../src/doctor/checks/peers.js";
import { port } from "../../../src/doctor/checks/port.js";
import { processes } from "../../../src/doctor/checks/processes.js";
import { gpuRates } from "../../../src/doctor/checks/rates.js";
import { shm } from "../../../src/doctor/checks/shm.js";
import { token } from "../../../src/doctor/checks/token.js";
import type { ExaminedModule } from "../../../src/doctor/examine.js";
import { type Host, thisHost } from "../../../src/doctor/host.js";
import { readSmi } from "../../../src/doctor/smi.js";
import type { Allocation } from "../../../src/launcher/cluster/allocation.js";

let root = "";

function write(path: string, text: string): void {
  mkdirSync(dirname(join(root, path)), { recursive: true });
  writeFileSync(join(root, path), text);
}

beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), "ditrun-doctor-"));
});
afterEach(() => rmSync(root, { recursive: true, force: true }));

const alone: Allocation = {
  ...{ nodes: 1, nodeRank: 0, leader: undefined, port: undefined, workers: undefined },
  ...{ job: "", sharesHome: false, why: "" },
};
const untouched: ExaminedModule = { devices: 0, ranks: [], pairs: [], versions: {}, libraries: [] };

/** A host whose files are those of `root`, with modules and variables as they are given. */
function host(given: Partial<Host> = {}): Host {
  const { environment = {} } = given;
  const real = thisHost({ root, environment, allocation: () => alone, bench: false });
  return { ...real, module: async () => untouched, smi: async () => undefined, ...given };
}

/** Two GPUs of the driver's, of which the process sees both. */
function putGpus(): void {
  for (const [index, address] of ["0000:1b:00.0", "0000:43:00.0"].entries()) {
    write(`proc/driver/nvidia/gpus/${address}/information`, `GPU UUID: GPU-${index}\nDevice Minor: ${index}\n`);
    write(`sys/bus/pci/devices/${address}/numa_node`, `${index}\n`);
    write(`sys/bus/pci/devices/${address}/vendor`, "0x10de\n");
    write(`sys/bus/pci/devices/${address}/class`, "0x030200\n");
    write(`dev/nvidia${index}`, "");
  }
  write("proc/driver/nvidia/version", "NVRM version: NVIDIA UNIX x86_64 Kernel Module  570.86.10  Sun Jan\n");
}

describe("GPUs", () => {
  test("a driver that shows them", async () => {
    putGpus();
    expect(await driver.run(host())).toMatchObject({ state: "ok", value: "NVIDIA 570.86.10", facts: { onBus: 2 } });
  });

  test("are on the bus and not in the container", async () => {
    putGpus();
    rmSync(join(root, "dev"), { recursive: true });
    write(".dockerenv", "");
    expect(await driver.run(host())).toMatchObject({ state: "warning", wayOut: expect.stringContaining("--gpus all") });
  });

  test("CUDA_VISIBLE_DEVICES names none of them", async () => {
    putGpus();
    const environment = { CUDA_VISIBLE_DEVICES: "banana" };
    const module = async (): Promise<ExaminedModule> => ({ ...untouched, file: "/opt/m.so", by: "build" });
    expect(await gpus.run(host({ environment, module }))).toMatchObject({
      state: "problem",
      value: "CUDA_VISIBLE_DEVICES=banana names none of 2 GPUs",
      wayOut: "Unset CUDA_VISIBLE_DEVICES, or give it numbers from 0 to 1, with commas.",
    });
  });

  test("what holds the GPU of a rank back is asked of that GPU", async () => {
    putGpus();
    const text =
      "NVIDIA H200, Enabled, 0, Disabled, 700, 700, 31, 1980, 1980\nNVIDIA H200, Enabled, 0, Disabled, 400, 700, 31, 1980, 1980\n";
    const rates = { edge: 8192, dtype: "bf16", gemmTflops: 442, copyGBs: 4100 } as const;
    const rank = { rank: 0, name: "NVIDIA H200", capability: "9.0", memoryBytes: 1, freeBytes: 1, rates };
    const module = async (): Promise<ExaminedModule> => ({ ...untouched, devices: 1, ranks: [rank] });
    const environment = { CUDA_VISIBLE_DEVICES: "1" };
    expect(await gpuRates.run(host({ environment, module, smi: async () => readSmi(text) }))).toMatchObject({
      ...{ state: "warning", value: "runs at 62 % of an H200's GEMM rate: power limit 400 W" },
    });
  });

  test("are on nodes", async () => {
    putGpus();
    for (const node of [0, 1]) write(`sys/devices/system/node/node${node}/cpulist`, "0-1\n");
    write("proc/self/status", "Cpus_allowed_list:\t0-3\n");
    expect(await numa.run(host())).toMatchObject({ value: "2 nodes, cores 0-3; GPU 0 on node 0, GPU 1 on node 1" });
  });

  test("the file of a library that was opened", async () => {
    const file = "/usr/local/cuda/lib64/libcublasLt.so.13.1.0";
    const module = async (): Promise<ExaminedModule> => ({
      ...{ ...untouched, devices: 2, versions: { cublasLt: "13.1.0" }, libraries: ["/lib/libcuda.so.1", file] },
    });
    expect(await cublaslt.run(host({ module }))).toMatchObject({ value: `13.1.0, ${file}, in CUDA's own folder` });
  });
});

describe("limits", () => {
  test("memory that a control group leaves, its cached files counted as free", async () => {
    write("proc/meminfo", "MemTotal: 67108864 kB\nMemAvailable: 62914560 kB\n");
    write("proc/self/cgroup", "0::/job/step\n");
    write("sys/fs/cgroup/job/memory.max", `${2 ** 31}\n`);
    write("sys/fs/cgroup/job/memory.current", `${2 ** 31 - 2 ** 28}\n`);
    write("sys/fs/cgroup/job/memory.stat", `anon 1\ninactive_file ${2 ** 28}\n`);
    write("sys/fs/cgroup/job/step/memory.max", "max\n");
    expect(await memory.run(host())).toMatchObject({ state: "warning", facts: { groupBytes: 2 ** 29 } });
  });

  test("memory of version 1, where almost 2^63 is no limit", async () => {
    write("proc/meminfo", "MemTotal: 67108864 kB\nMemAvailable: 62914560 kB\n");
    write("proc/self/cgroup", "4:memory:/a\n");
    write("sys/fs/cgroup/memory/a/memory.limit_in_bytes", "9223372036854771712\n");
    write("sys/fs/cgroup/memory/a/memory.usage_in_bytes", "1000\n");
    expect(await memory.run(host())).toMatchObject({ state: "ok", facts: { groupBytes: null } });
    write("sys/fs/cgroup/memory/memory.limit_in_bytes", `${2 ** 27}\n`);
    write("sys/fs/cgroup/memory/memory.usage_in_bytes", "1000\n");
    expect(await memory.run(host())).toMatchObject({ state: "problem", facts: { groupBytes: 2 ** 27 - 1000 } });
  });

  test("cores that a control group allows", async () => {
    write("proc/self/cgroup", "0::/\n");
    write("sys/fs/cgroup/cpu.max", "50000 100000\n");
    expect(await cpuLimit.run(host())).toMatchObject({ state: "warning", facts: { allowed: 0.5 } });
    write("sys/fs/cgroup/cpu.max", "max 100000\n");
    expect(await cpuLimit.run(host())).toMatchObject({ state: "ok", facts: { allowed: null } });
  });

  test("threads that a control group allows", async () => {
    write("proc/self/cgroup", "0::/\n");
    write("sys/fs/cgroup/pids.max", "20\n");
    write("sys/fs/cgroup/pids.current", "12\n");
    expect(await processes.run(host())).toMatchObject({
      state: "problem",
      facts: { ofContainer: { most: 20, used: 12 } },
    });
  });

  test("files and locked memory of the process", async () => {
    write("proc/self/limits", "Max locked memory  8388608  8388608  bytes\nMax open files  60  4096  files\n");
    write("sys/class/infiniband/mlx5_0", "");
    expect(await openFiles.run(host())).toMatchObject({ state: "problem", facts: { most: 60 } });
    const allocation = () => ({ ...alone, nodes: 2 });
    expect(await lockedMemory.run(host({ allocation }))).toMatchObject({
      state: "warning",
      facts: { mostBytes: 2 ** 23 },
    });
  });

  test("/dev/shm is written, and nothing is left there", async () => {
    mkdirSync(join(root, "dev/shm"), { recursive: true });
    expect(await shm.run(host())).toMatchObject({ facts: { failure: null } });
    expect(readdirSync(join(root, "dev/shm"))).toEqual([]);
    rmSync(join(root, "dev/shm"), { recursive: true });
    expect(await shm.run(host())).toMatchObject({ state: "warning", facts: { freeBytes: 0 } });
  });
});

describe("network", () => {
  test("a port that another program has", async () => {
    const server = createServer();
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", () => resolve()));
    const bound = server.address();
    const taken = String(typeof bound === "object" ? bound?.port : "");
    try {
      expect(await port.run(host({ environment: { MASTER_PORT: taken } }))).toMatchObject({
        state: "problem",
        value: `MASTER_PORT=${taken} cannot be opened: another program listens there`,
      });
    } finally {
      server.close();
    }
    expect(await port.run(host({ environment: { MASTER_PORT: taken } }))).toMatchObject({ state: "ok" });
  });
});

describe("files", () => {
  test("a cache that is there, is to be made, and is no folder; nothing is left", async () => {
    const environment = { HF_HUB_CACHE: join(root, "a/b") };
    expect(await hubCacheCheck.run(host({ environment }))).toMatchObject({ state: "ok", facts: { there: false } });
    expect(readdirSync(root)).toEqual([]);
    mkdirSync(join(root, "a/b"), { recursive: true });
    expect(await hubCacheCheck.run(host({ environment }))).toMatchObject({ state: "ok", facts: { there: true } });
    expect(readdirSync(join(root, "a/b"))).toEqual([]);
    rmSync(join(root, "a"), { recursive: true });
    write("a", "a file");
    expect(await hubCacheCheck.run(host({ environment }))).toMatchObject({ state: "warning" });
  });

  test.skipIf(process.getuid?.() === 0)("a cache that may not be written", async () => {
    chmodSync(root, 0o500);
    const environment = { HF_HUB_CACHE: root };
    expect(await hubCacheCheck.run(host({ environment }))).toMatchObject({
      ...{ state: "warning", value: expect.stringContaining("permission is denied") },
    });
    chmodSync(root, 0o700);
  });

  test("a token is never told", async () => {
    const found = await token.run(host({ environment: { HF_TOKEN: "hf_secret" } }));
    expect(found).toMatchObject({ state: "ok", value: "there is one" });
    expect(JSON.stringify(found)).not.toContain("secret");
    const broken = await token.run(host({ environment: { HF_TOKEN: "hf secret" } }));
    expect(broken.state).toBe("problem");
    expect(JSON.stringify(broken)).not.toContain("secret");
  });
});

// Real processes, each of which loads what it is told to.
describe("a kernel module", () => {
  const real = (environment: NodeJS.ProcessEnv) =>
    thisHost({ environment: { ...process.env, ...environment }, allocation: () => alone, bench: false });

  test("that works is tried in two processes, which read each other's memory", async () => {
    const working = real({ DITRUN_KERNELS: "" });
    expect(await cpuModule.run(working)).toMatchObject({ state: "ok", value: expect.stringContaining("tried") });
    expect(await cpuPeers.run(working)).toMatchObject({
      ...{
        state: "ok",
        facts: {
          pairs: [
            { from: 1, to: 0 },
            { from: 0, to: 1 },
          ],
        },
      },
    });
  });

  test.each([
    ["is not there", undefined, "There is no "],
    ["is a web page", "<!DOCTYPE html>\n<title>404</title>\n", "could not be loaded"],
  ])("that %s", async (_, text, says) => {
    if (text !== undefined) write("m.so", text);
    const broken = real({ DITRUN_KERNELS: join(root, "m.so") });
    const found = await cpuModule.run(broken);
    expect(found).toMatchObject({
      state: "problem",
      value: expect.stringContaining(says),
      wayOut: "Unset DITRUN_KERNELS.",
    });
    expect(found.value).not.toMatch(/\n|node:/);
    expect(await cpuPeers.run(broken)).toMatchObject({ state: "ok", value: "not tried: the CPU module is not" });
  });

  test("that ends the process that loads it", async () => {
    const crash = "#include <signal.h>\n__attribute__((constructor)) void end(void) { raise(SIGSEGV); }\n";
    const file = join(root, "m.so");
    await execa("cc", ["-shared", "-fPIC", "-o", file, "-x", "c", "-"], { input: crash });
    expect(await cpuModule.run(real({ DITRUN_KERNELS: file }))).toMatchObject({
      ...{ state: "problem", value: `A process that tried ${file} was killed by SIGSEGV.` },
    });
  });
});
