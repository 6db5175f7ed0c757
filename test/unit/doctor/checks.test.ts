import { describe, expect, test } from "vitest";
import { type Check, defineCheck, type Finding, type State } from "../../../src/doctor/check.js";
import { bandwidth } from "../../../src/doctor/checks/bandwidth.js";
import { capability } from "../../../src/doctor/checks/capability.js";
import { container } from "../../../src/doctor/checks/container.js";
import { cores } from "../../../src/doctor/checks/cores.js";
import { cpuLimit } from "../../../src/doctor/checks/cpu-limit.js";
import { disk } from "../../../src/doctor/checks/disk.js";
import { driver } from "../../../src/doctor/checks/driver.js";
import { ffmpeg } from "../../../src/doctor/checks/ffmpeg.js";
import { gpus } from "../../../src/doctor/checks/gpus.js";
import { health } from "../../../src/doctor/checks/health.js";
import { hosts } from "../../../src/doctor/checks/hosts.js";
import { hubCacheCheck } from "../../../src/doctor/checks/hub-cache.js";
import { checks } from "../../../src/doctor/checks/index.js";
import { install } from "../../../src/doctor/checks/install.js";
import { ipv6 } from "../../../src/doctor/checks/ipv6.js";
import { cublaslt, nccl } from "../../../src/doctor/checks/libraries.js";
import { lockedMemory } from "../../../src/doctor/checks/locked-memory.js";
import { loopback } from "../../../src/doctor/checks/loopback.js";
import { memory } from "../../../src/doctor/checks/memory.js";
import { cpuModule, cudaModule } from "../../../src/doctor/checks/modules.js";
import { koffi, zeromq } from "../../../src/doctor/checks/native-packages.js";
import { networkInterface, takes } from "../../../src/doctor/checks/network-interface.js";
import { node } from "../../../src/doctor/checks/node.js";
import { numa } from "../../../src/doctor/checks/numa.js";
import { openFiles } from "../../../src/doctor/checks/open-files.js";
import { cpuPeers, cudaPeers } from "../../../src/doctor/checks/peers.js";
import { port } from "../../../src/doctor/checks/port.js";
import { processes } from "../../../src/doctor/checks/processes.js";
import { cpuRates, gpuRates } from "../../../src/doctor/checks/rates.js";
import { shm } from "../../../src/doctor/checks/shm.js";
import { temporary } from "../../../src/doctor/checks/temporary.js";
import { token } from "../../../src/doctor/checks/token.js";
import { checkNames } from "../../../src/doctor/names.js";
import { chosenChecks } from "../../../src/doctor/run-checks.js";
import { readSmi } from "../../../src/doctor/smi.js";

/** A check with facts that it is given, and what they come to. */
interface Case {
  readonly check: Check;
  readonly finding: Finding;
  readonly state: State;
  /** Stands in the value and the way out together. */
  readonly says: string;
}

function given<Facts extends object>(
  check: Check & { judge(facts: Facts): Finding },
  facts: Facts,
  state: State,
  says: string,
): Case {
  return { check, finding: check.judge(facts), state, says };
}

const GiB = 2 ** 30;
const h200 = { name: "NVIDIA H200", memoryBytes: 140 * GiB, freeBytes: 139 * GiB, capability: "9.0" };
const eight = Array.from({ length: 8 }, (_, rank) => ({ ...h200, rank }));
const seen = { visible: true, shown: 8, chosen: null, asked: true, seen: 8, ranks: eight };
const library = { gpus: 8, hosts: 1, version: "13.1.0", chosen: null, searched: ["/opt/lib"], failure: null };
const file = "/usr/lib/x86_64-linux-gnu/libcublasLt.so.13";
const pairs = (failing: number, rate: number | null = null) =>
  [0, 1, 2].flatMap((to) =>
    [0, 1, 2]
      .filter((from) => from !== to)
      .map((from) => ({
        ...{ from, to, gigabytesPerSecond: to === failing && rate !== null ? rate / 10 : rate },
        ...(to === failing && rate === null ? { failure: "peer access is not supported." } : {}),
      })),
  );
const smi = {
  ...{ name: "NVIDIA H200", eccOn: true, uncorrected: 0, migOn: false, powerLimit: 700, usualPowerLimit: 700 },
  ...{ temperature: 40, clock: 1980, mostClock: 1980 },
};
const rates = { edge: 8192, dtype: "bf16", gemmTflops: 700, copyGBs: 4200 } as const;
const folder = { folder: "/scratch", there: true, failure: null, freeBytes: 100 * GiB };
const nodeFacts = {
  version: "22.12.0",
  platform: "linux",
  arch: "x64",
  program: "/usr/bin/node",
  needed: "20.19",
} as const;
const ditrun = { version: "0.2.0", commit: null, folder: "/opt/ditrun", missing: [] };
const moduleFacts = { file: "/opt/m.so", by: "build", devices: 1, gpu: false } as const;
const route = { address: "10.0.0.1", source: "10.0.0.2", interface: "eth0" };
const net = { interfaces: ["lo", "eth0"], chosen: null, leader: null, way: null, failure: null };
const cpu = { name: "AMD EPYC", cores: 64, usable: 64, level: "x86-64-v3", lacks: [] } as const;

const cases: readonly Case[] = [
  given(node, nodeFacts, "ok", "22.12.0"),
  given(node, { ...nodeFacts, version: "20.18.3" }, "problem", "needs 20.19"),
  given(node, { ...nodeFacts, platform: "darwin" }, "problem", "needs Linux"),
  given(install, ditrun, "ok", "0.2.0, /opt/ditrun"),
  given(install, { ...ditrun, commit: "a".repeat(40) }, "ok", "at commit aaaaaaa"),
  given(install, { ...ditrun, missing: ["dist/worker/main.js"] }, "problem", "dist/worker/main.js of /opt/ditrun"),
  given(koffi, { version: "3.3.4", folder: "/" }, "ok", "3.3.4"),
  given(zeromq, { failure: "no such module", folder: "/opt" }, "problem", "npm rebuild zeromq"),

  given(driver, { version: "570.86.10", visible: true, onBus: 8, container: null }, "ok", "NVIDIA 570.86.10"),
  given(driver, { version: null, visible: false, onBus: 0, container: null }, "ok", "the CPU module is used"),
  given(driver, { version: null, visible: false, onBus: 2, container: null }, "warning", "Install NVIDIA's driver"),
  given(driver, { version: "570.86.10", visible: false, onBus: 8, container: "Docker" }, "warning", "--gpus all"),
  given(gpus, { ...seen, visible: false, seen: 0, ranks: [] }, "ok", "none"),
  given(
    gpus,
    { ...seen, visible: false, chosen: "x", seen: 0, ranks: [] },
    "ok",
    "CUDA_VISIBLE_DEVICES=x means nothing",
  ),
  given(gpus, seen, "ok", "8 × NVIDIA H200, 140.00 GiB; rank n takes GPU n"),
  given(gpus, { ...seen, asked: false }, "ok", "no CUDA module"),
  given(gpus, { ...seen, chosen: "", seen: 0, ranks: [] }, "ok", "hidden by CUDA_VISIBLE_DEVICES="),
  given(
    gpus,
    { ...seen, chosen: "banana", seen: 0, ranks: [] },
    "problem",
    "CUDA_VISIBLE_DEVICES=banana names none of 8 GPUs",
  ),
  given(gpus, { ...seen, chosen: "0,-1", seen: 1, ranks: eight.slice(0, 1) }, "ok", "1 × NVIDIA H200"),
  given(gpus, { ...seen, seen: 0, ranks: [] }, "problem", "nvidia-smi"),
  given(
    gpus,
    { ...seen, chosen: "0,9", seen: 1, ranks: eight.slice(0, 1) },
    "warning",
    "names 2, of which CUDA sees 1",
  ),
  given(
    gpus,
    { ...seen, ranks: [h200, h200, { ...h200, name: "NVIDIA L4" }] },
    "ok",
    "0–1: NVIDIA H200, 140.00 GiB; 2: NVIDIA L4",
  ),
  given(
    capability,
    { ranks: eight.map((each) => ({ ...each, failure: undefined })) },
    "ok",
    "9.0, with kernels of its own",
  ),
  given(capability, { ranks: [] }, "ok", "no GPU"),
  given(
    capability,
    { ranks: [{ ...h200, rank: 0, capability: "12.0", failure: undefined }] },
    "ok",
    "the driver translates",
  ),
  given(
    capability,
    {
      ranks: [
        { ...h200, rank: 1, failure: "Device 1 has compute capability 7.5: the CUDA module needs 8.0 or newer." },
      ],
    },
    "problem",
    "Take newer GPUs",
  ),
  given(
    capability,
    { ranks: [{ ...h200, rank: 3, failure: "an illegal address was met." }] },
    "problem",
    "GPU 3: an illegal",
  ),
  given(health, { gpus: [], asked: false }, "ok", "nothing to ask"),
  given(
    health,
    { gpus: [smi, { ...smi, powerLimit: 400, migOn: true }], asked: true },
    "ok",
    "MIG on for GPU 1, power limit 400 of 700 W on GPU 1",
  ),
  given(health, { gpus: [smi, { ...smi, uncorrected: 2 }], asked: true }, "warning", "GPU 1 has had errors"),
  given(gpuRates, { ranks: [{ ...h200, rank: 0, rates }], smi: [smi] }, "ok", "98 % and 103 % of an H200's"),
  given(
    gpuRates,
    { ranks: [{ ...h200, rank: 0, rates: { ...rates, gemmTflops: 442 } }], smi: [{ ...smi, powerLimit: 400 }] },
    "warning",
    "runs at 62 % of an H200's GEMM rate: power limit 400 W",
  ),
  given(
    gpuRates,
    { ranks: [{ ...h200, rank: 0, rates: { ...rates, copyGBs: 1000 } }], smi: [] },
    "warning",
    "25 % of an H200's copy rate",
  ),
  given(
    gpuRates,
    { ranks: [{ rank: 0, name: "NVIDIA X1", rates }], smi: [] },
    "ok",
    "what is usual for NVIDIA X1 is not known",
  ),

  given(cpuModule, moduleFacts, "ok", "/opt/m.so, built here, tried"),
  given(cpuModule, { devices: 0, gpu: false, missing: "npm run build" }, "problem", "npm run build"),
  given(cpuModule, { ...moduleFacts, failure: "it was killed by SIGILL" }, "problem", "It was killed by SIGILL."),
  given(cpuModule, { ...moduleFacts, rankFailure: "a sum is 3 instead of 4." }, "problem", "A sum is 3"),
  given(
    cpuModule,
    { ...moduleFacts, by: "DITRUN_KERNELS", failure: "there is none" },
    "problem",
    "Unset DITRUN_KERNELS",
  ),
  given(cudaModule, { ...moduleFacts, untried: "no GPU" }, "ok", "no GPU to try it on"),
  given(cudaModule, { ...moduleFacts, untried: "replaced" }, "ok", "DITRUN_KERNELS names another"),
  given(cudaModule, { devices: 0, gpu: false, missing: "npm run build" }, "ok", "no GPU either"),
  given(cudaModule, { devices: 0, gpu: true, missing: "npm run build" }, "warning", "the GPU is not used"),
  given(cublaslt, { ...library, file, gpus: 0, version: null }, "ok", "not needed without a GPU"),
  given(cublaslt, { ...library, file }, "ok", `13.1.0, ${file}, by the system's loader`),
  given(cublaslt, { ...library, file, searched: ["/usr/lib/x86_64-linux-gnu"] }, "ok", "by LD_LIBRARY_PATH"),
  given(cublaslt, { ...library, file, chosen: file }, "ok", "by DITRUN_CUBLASLT"),
  given(cublaslt, { ...library, file: null, version: null }, "problem", "Install libcublas"),
  given(cublaslt, { ...library, file, failure: "the product failed" }, "problem", "The product failed."),
  given(nccl, { ...library, file: null, version: null }, "ok", "only plans over NCCL"),
  given(nccl, { ...library, file: null, version: null, hosts: 2 }, "problem", "Install libnccl2"),
  given(
    nccl,
    { ...library, file: null, version: null, chosen: "/nope" },
    "problem",
    "DITRUN_NCCL=/nope cannot be opened",
  ),

  given(cpuPeers, { none: null, workers: 3, pairs: pairs(-1) }, "ok", "each of 3 workers"),
  given(
    cpuPeers,
    { none: null, workers: 3, pairs: pairs(1) },
    "problem",
    "worker 1 cannot read the memory of worker 0 (and 1 more of 6 ways)",
  ),
  given(cudaPeers, { none: "no GPU", workers: 0, pairs: [] }, "ok", "no GPU"),
  given(cudaPeers, { none: null, workers: 3, pairs: pairs(2) }, "problem", "--ipc=host"),
  given(bandwidth, { device: "GPU", pairs: pairs(-1, 400) }, "ok", "400 GB/s"),
  given(bandwidth, { device: "GPU", pairs: pairs(1, 400) }, "warning", "2 of 6 ways are slow, as from 0 to 1"),
  given(bandwidth, { device: "worker", pairs: pairs(1, 400) }, "ok", "40 to 400 GB/s"),
  given(bandwidth, { device: "GPU", pairs: [] }, "ok", "no link"),

  given(memory, { totalBytes: 64 * GiB, availableBytes: 60 * GiB, groupBytes: null }, "ok", "60.00 GiB of 64.00 GiB"),
  given(
    memory,
    { totalBytes: 64 * GiB, availableBytes: 60 * GiB, groupBytes: GiB / 2 },
    "warning",
    "by its control group",
  ),
  given(memory, { totalBytes: GiB, availableBytes: GiB / 8, groupBytes: null }, "problem", "End other programs"),
  given(shm, { failure: null, freeBytes: GiB, gpus: 8 }, "ok", "1.00 GiB free"),
  given(shm, { failure: null, freeBytes: GiB / 16, gpus: 0 }, "ok", "64.0 MiB free"),
  given(shm, { failure: null, freeBytes: GiB / 16, gpus: 8 }, "warning", "--shm-size"),
  given(shm, { failure: "the file system is read-only", freeBytes: 0, gpus: 0 }, "warning", "read-only"),
  given(shm, { failure: "the file system is read-only", freeBytes: 0, gpus: 2 }, "problem", "read-only"),
  given(lockedMemory, { mostBytes: null, infiniband: ["mlx5_0"], hosts: 2 }, "ok", "unlimited"),
  given(lockedMemory, { mostBytes: 2 ** 23, infiniband: ["mlx5_0"], hosts: 1 }, "ok", "8.0 MiB"),
  given(lockedMemory, { mostBytes: 2 ** 23, infiniband: ["mlx5_0"], hosts: 2 }, "warning", "ulimit -l unlimited"),
  given(openFiles, { most: 1024, workers: 8 }, "ok", "1024"),
  given(openFiles, { most: null, workers: 8 }, "ok", "unlimited"),
  given(openFiles, { most: 100, workers: 8 }, "problem", "ulimit -n"),
  given(processes, { ofUser: null, ofContainer: null, workers: 8 }, "ok", "no limit"),
  given(
    processes,
    { ofUser: { most: 4000, used: 1 }, ofContainer: { most: 2000, used: 9 }, workers: 8 },
    "ok",
    "2000 threads",
  ),
  given(processes, { ofUser: { most: 60, used: 1 }, ofContainer: null, workers: 8 }, "problem", "ulimit -u"),
  given(processes, { ofUser: null, ofContainer: { most: 100, used: 50 }, workers: 8 }, "problem", "--pids-limit"),
  given(container, { container: "Kubernetes" }, "ok", "Kubernetes"),
  given(container, { container: null }, "ok", "none"),

  given(loopback, { failure: null }, "ok", "127.0.0.1"),
  given(loopback, { failure: "there is no way to it" }, "problem", "ip link set lo up"),
  given(port, { chosen: null, leading: null, failure: null }, "ok", "any free one"),
  given(port, { chosen: "29500", leading: null, failure: null }, "ok", "MASTER_PORT=29500"),
  given(port, { chosen: null, leading: 29500, failure: null }, "ok", "where this host leads"),
  given(
    port,
    { chosen: "29500", leading: null, failure: "another program listens there" },
    "problem",
    "Unset MASTER_PORT",
  ),
  given(port, { chosen: null, leading: 29500, failure: "another program listens there" }, "problem", "--master-port"),
  given(port, { chosen: "banana", leading: null, failure: null }, "problem", "MASTER_PORT=banana is no port"),
  given(networkInterface, net, "ok", "loopback"),
  given(networkInterface, { ...net, leader: "a", way: route }, "ok", "eth0, from 10.0.0.2 to host 0 at 10.0.0.1"),
  given(networkInterface, { ...net, leader: "a", failure: "its name is not known" }, "problem", "--master-addr"),
  given(networkInterface, { ...net, chosen: "ib0" }, "problem", "NCCL_SOCKET_IFNAME=ib0 takes none of lo, eth0"),
  given(networkInterface, { ...net, chosen: "eth" }, "ok", "NCCL_SOCKET_IFNAME=eth"),
  given(ipv6, { failure: null, leader: null }, "ok", "::1"),
  given(ipv6, { failure: "there is no way to it", leader: "10.0.0.1" }, "ok", "IPv4"),
  given(ipv6, { failure: "there is no way to it", leader: "fd00::1" }, "problem", "fd00::1"),
  given(hosts, { nodes: 1, nodeRank: 0, why: "", failure: null }, "ok", "this one alone"),
  given(hosts, { nodes: 2, nodeRank: 1, why: "This is node 1 of 2, by Slurm.", failure: null }, "ok", "node 1 of 2"),
  given(
    hosts,
    { nodes: 1, nodeRank: null, why: "", failure: "nothing says where node 0 is." },
    "problem",
    "where node 0 is",
  ),

  given(cores, cpu, "ok", "AMD EPYC, 64 cores, x86-64-v3"),
  given(cores, { ...cpu, usable: 8 }, "ok", "8 of 64 cores"),
  given(cores, { ...cpu, level: null, lacks: ["ssse3"] }, "warning", "lacks ssse3"),
  given(cpuLimit, { allowed: null, cores: 64, threads: null, gpu: false }, "ok", "none"),
  given(cpuLimit, { allowed: 2.5, cores: 64, threads: null, gpu: false }, "warning", "Set OMP_NUM_THREADS to 2"),
  given(cpuLimit, { allowed: 2.5, cores: 64, threads: null, gpu: true }, "ok", "2.5 of 64"),
  given(cpuLimit, { allowed: 2.5, cores: 64, threads: "2", gpu: false }, "ok", "2.5 of 64"),
  given(numa, { nodes: 1, gpuNodes: [], allowed: "0-1" }, "ok", "one node"),
  given(
    numa,
    { nodes: 2, gpuNodes: [0, 0, 1, 1], allowed: "0-63" },
    "ok",
    "2 nodes, cores 0-63; GPU 0–1 on node 0, GPU 2–3 on node 1",
  ),
  given(
    cpuRates,
    { rates: { edge: 512, dtype: "fp32", gemmTflops: 0.085, copyGBs: 26 }, failure: null },
    "ok",
    "85 GFLOP/s of fp32",
  ),
  given(cpuRates, { rates: null, failure: null }, "ok", "not measured"),
  given(cpuRates, { rates: null, failure: "out of memory." }, "warning", "out of memory"),
  given(
    gpuRates,
    { ranks: [{ ...h200, rank: 5, ratesFailure: "out of memory." }], smi: [] },
    "warning",
    "GPU 5 cannot be measured: out",
  ),

  given(hubCacheCheck, { unknown: null, offline: false, ...folder }, "ok", "/scratch, written"),
  given(hubCacheCheck, { unknown: null, offline: false, ...folder, there: false }, "ok", "can be made"),
  given(
    hubCacheCheck,
    { unknown: null, offline: false, ...folder, failure: "permission is denied" },
    "warning",
    "HF_HUB_CACHE",
  ),
  given(
    hubCacheCheck,
    { unknown: null, offline: true, ...folder, failure: "permission is denied" },
    "ok",
    "for reading",
  ),
  given(hubCacheCheck, { unknown: "The home folder is not known.", offline: false }, "warning", "home folder"),
  given(disk, { folder: "/scratch", freeBytes: 100 * GiB }, "ok", "100.00 GiB"),
  given(disk, { folder: "/scratch", freeBytes: GiB }, "warning", "HF_HOME"),
  given(disk, { folder: "/scratch", freeBytes: null }, "ok", "not told"),
  given(temporary, folder, "ok", "/scratch, written"),
  given(temporary, { ...folder, freeBytes: 1000 }, "warning", "TMPDIR"),
  given(temporary, { ...folder, there: false }, "problem", "does not exist"),
  given(temporary, { ...folder, failure: "permission is denied" }, "problem", "permission is denied"),
  given(ffmpeg, { there: false, encoder: null, failure: "" }, "ok", "npm's encoder"),
  given(ffmpeg, { there: true, encoder: "libx264", failure: null }, "ok", "libx264"),
  given(ffmpeg, { there: true, encoder: null, failure: "Unknown encoder" }, "warning", "Unknown encoder"),
  given(token, { present: true, failure: null }, "ok", "there is one"),
  given(token, { present: false, failure: null }, "ok", "none"),
  given(token, { present: false, failure: "HF_TOKEN holds no token." }, "problem", "HF_TOKEN"),
];

test.each(cases.map((each): [string, State, string, Case] => [each.check.name, each.state, each.says, each]))(
  "%s: %s, as %s",
  (_, state, says, { finding }) => {
    expect(finding.state).toBe(state);
    expect(`${finding.value}\n${finding.wayOut ?? ""}`).toContain(says);
  },
);

/** Their value is another part's message, which ends in the way out. */
const messages = ["hosts", "hub-cache"];

test.each(cases.filter(({ finding, check }) => finding.state !== "ok" && !messages.includes(check.name)))(
  "what is not as it should be has a way out: $says",
  ({ finding }) => {
    expect(finding.wayOut).toMatch(/\S/);
  },
);

test("every check has a case, and the names that the command line knows", () => {
  expect(checks.map(({ name }) => name)).toEqual(checkNames);
  expect(checkNames.filter((name) => !cases.some(({ check }) => check.name === name))).toEqual([]);
  for (const { what } of checks) expect(what.length).toBeLessThanOrEqual(13);
});

describe("a check", () => {
  const words = { name: "node", section: "install", what: "x" } as const;
  const host = {
    ...{ root: "/", environment: {}, gpus: () => [], smi: async () => undefined },
    allocation: () => {
      throw new Error("asked for nothing");
    },
    module: async () => ({ devices: 0, ranks: [], pairs: [], versions: {}, libraries: [] }),
  };
  const judge = (): Finding => ({ state: "ok", value: "fine" });

  test("that cannot look is a problem", async () => {
    const look = () => {
      throw new Error("no eyes");
    };
    expect(await defineCheck({ ...words, look, judge }).run(host)).toEqual({
      state: "problem",
      value: "no eyes",
      facts: null,
    });
  });

  test("that does not answer is a problem once its time is over", async () => {
    const look = () => new Promise<object>(() => undefined);
    const { state, value } = await defineCheck({ ...words, deadline: 0.02, look, judge }).run(host);
    expect([state, value]).toEqual(["problem", "there was no answer within 0.02 s."]);
  });

  test("is chosen by its name or section; one that measures by --bench or its own name alone", () => {
    const names = (only: string[], bench = false) => chosenChecks(checks, only, bench).map(({ name }) => name);
    expect(names([])).toEqual(checkNames.filter((name) => !/rates|bandwidth/.test(name)));
    expect(names([], true)).toEqual(checkNames);
    expect(names(["links", "node"])).toEqual(["node", "gpu-peers", "cpu-peers"]);
    expect(names(["links"], true)).toEqual(["gpu-peers", "cpu-peers", "bandwidth"]);
    expect(names(["gpu-rates"])).toEqual(["gpu-rates"]);
  });
});

test.each([
  ["eth", "eth0", true],
  ["=eth", "eth0", false],
  ["=eth0", "eth0", true],
  ["^docker,lo", "lo", false],
  ["^docker,lo", "eth0", true],
  ["ib,eth", "eth0", true],
])("NCCL_SOCKET_IFNAME=%s takes %s: %s", (chosen, name, expected) => {
  expect(takes(chosen, name)).toBe(expected);
});

test("nvidia-smi's answer is read, with what it does not know left out", () => {
  const text =
    "NVIDIA H200, Enabled, 0, Disabled, 700.00, 700.00, 31, 345, 1980\nNVIDIA L4, [N/A], [N/A], [N/A], 72.00, 72.00, 40, 210, 2040\n";
  const unknown = { eccOn: undefined, uncorrected: undefined, migOn: undefined };
  expect(readSmi(text)).toEqual([
    { ...smi, temperature: 31, clock: 345 },
    {
      ...unknown,
      name: "NVIDIA L4",
      powerLimit: 72,
      usualPowerLimit: 72,
      temperature: 40,
      clock: 210,
      mostClock: 2040,
    },
  ]);
});
