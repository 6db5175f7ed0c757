import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { bindingOf } from "../../../src/cli/run/numa.js";
import { coresOf } from "../../../src/launcher/cores.js";
import { gpusOfHost, visibleGpus } from "../../../src/launcher/gpus.js";

let root = "";

function write(path: string, text: string): void {
  mkdirSync(dirname(join(root, path)), { recursive: true });
  writeFileSync(join(root, path), text);
}

/** Three GPUs, of which a container has two; their minors are not in the order of their addresses. */
beforeAll(() => {
  root = mkdtempSync(join(tmpdir(), "ditrun-gpus-"));
  const gpus = [
    ["0000:1B:00.0", 2, "GPU-aa11", "0"],
    ["0000:43:00.0", 0, "GPU-bb22", "1"],
    ["0000:ab:00.0", 1, "GPU-cc33", "-1"],
  ] as const;
  for (const [address, minor, uuid, node] of gpus) {
    const text = `Model: \t\t NVIDIA H200\nGPU UUID: \t ${uuid}\nDevice Minor: \t ${minor}\n`;
    write(`proc/driver/nvidia/gpus/${address}/information`, text);
    write(`sys/bus/pci/devices/${address.toLowerCase()}/numa_node`, `${node}\n`);
  }
  for (const name of ["nvidia0", "nvidia1", "nvidia2", "nvidiactl"]) write(`dev/${name}`, "");
  write("sys/devices/system/node/node0/cpulist", "0-15,32-47\n");
  write("sys/devices/system/node/node1/cpulist", "16-31\n");
});
afterAll(() => rmSync(root, { recursive: true }));

test("GPUs are those that may be opened, in the order of their addresses", () => {
  expect(gpusOfHost(root).map(({ minor }) => minor)).toEqual([2, 0, 1]);
  rmSync(join(root, "dev/nvidia0"));
  expect(gpusOfHost(root).map(({ uuid }) => uuid)).toEqual(["GPU-aa11", "GPU-cc33"]);
  write("dev/nvidia0", "");
  expect(gpusOfHost(join(root, "nowhere"))).toEqual([]);
});

describe("CUDA_VISIBLE_DEVICES", () => {
  test.each([
    [undefined, ["0", "1", "2"]],
    ["", []],
    ["2,0", ["2", "0"]],
    ["GPU-bb, 1", ["GPU-bb", "1"]],
    ["1,7,0", ["1"]],
    ["-1", []],
    ["MIG-0f,0", ["MIG-0f", "0"]],
  ])("%s", (visible, words) => {
    expect(visibleGpus(gpusOfHost(root), visible)).toEqual(words);
  });
});

describe("--numa-binding", () => {
  // Two sockets of 16 cores of two threads and of 8 of two; L3 caches of four cores. Core 15 and its thread 47 are not ours.
  const socketOf = (core: number) => (core >= 16 && core < 32 ? 1 : 0);
  const threadsOf = (core: number) => {
    if (socketOf(core) === 1) return core < 24 ? `${core},${core + 8}` : `${core - 8},${core}`;
    return core < 16 ? `${core},${core + 32}` : `${core - 32},${core}`;
  };
  beforeAll(() => {
    write("proc/self/status", "Name:\tnode\nCpus_allowed_list:\t0-14,16-46\n");
    write("sys/devices/system/cpu/online", "0-47\n");
    for (let core = 0; core < 48; core++) {
      const cpu = `sys/devices/system/cpu/cpu${core}`;
      const [first = 0] = threadsOf(core).split(",").map(Number);
      write(`${cpu}/topology/physical_package_id`, `${socketOf(core)}\n`);
      write(`${cpu}/topology/thread_siblings_list`, `${threadsOf(core)}\n`);
      write(`${cpu}/cache/index3/shared_cpu_list`, `${Math.floor(first / 4)}\n`);
    }
  });

  const [aa, bb, cc] = ["0000:1b:00.0", "0000:43:00.0", "0000:ab:00.0"].map((address) => ({
    minor: 0,
    uuid: "",
    address,
  }));
  const two = [aa, aa, bb, cc, undefined];
  test.each([
    ["node", ["0-14,32-46", "0-14,32-46", "16-31", undefined, undefined]],
    ["socket", ["0-14,32-46", "0-14,32-46", "16-31", undefined, undefined]],
    // 15 cores of two threads for two ranks: 8 and 7.
    ["exclusive", ["0-7,32-39", "8-14,40-46", "16-31", undefined, undefined]],
    ["core-complex", ["0-3,32-35", "4-7,36-39", "16-19,24-27", undefined, undefined]],
  ] as const)("%s", (binding, cores) => {
    expect(coresOf(binding, two, root)).toEqual({ cores });
  });

  test("a socket has the cores of all its nodes", () => {
    write("sys/devices/system/node/node1/cpulist", "16-23\n");
    expect(coresOf("socket", [bb], root)).toEqual({ cores: ["16-31"] });
    write("sys/devices/system/node/node1/cpulist", "16-31\n");
  });

  test("more ranks than cores, or a host that does not tell: whole nodes, and a word", () => {
    const many = Array.from({ length: 16 }, () => aa);
    const told = coresOf("exclusive", many, root);
    expect(told.cores).toEqual(many.map(() => "0-14,32-46"));
    expect(told.untold).toMatch(/fewer cores than ranks/);
    rmSync(join(root, "sys/devices/system/cpu/cpu20/cache"), { recursive: true });
    const said: string[] = [];
    const bind = bindingOf("core-complex", { gpus: gpusOfHost(root), visible: ["1"] }, process.env, logger(said), root);
    expect(bind?.(0, command).slice(1, 3)).toEqual(["--cpu-list", "16-31"]);
    expect(said).toEqual(["--numa-binding core-complex is node here: this host does not tell its cores' caches."]);
  });

  const logger = (said: string[]) => {
    const take = (sentence: string) => void said.push(sentence);
    return { error: take, warn: take, info: take, debug: () => undefined };
  };
  const command = ["python3", "train.py"] as const;

  test("keeps a rank on the cores of its GPU, by the words that say which that is", () => {
    const said: string[] = [];
    const bind = bindingOf(
      "node",
      { gpus: gpusOfHost(root), visible: ["1", "GPU-aa", "2"] },
      process.env,
      logger(said),
      root,
    );
    expect(bind?.(0, command)).toEqual([expect.stringMatching(/\/taskset$/), "--cpu-list", "16-31", ...command]);
    expect(bind?.(1, command).slice(1, 3)).toEqual(["--cpu-list", "0-14,32-46"]);
    expect(bind?.(2, command)).toBe(command);
    expect(bind?.(3, command)).toBe(command);
    expect(said).toEqual([]);
  });

  test.each([
    [[], process.env, /^--numa-binding has no effect: this host tells no cores beside a GPU\.$/],
    [["0"], { PATH: "/nowhere" }, /^--numa-binding has no effect: there is no taskset/],
  ])("is told to have no effect where it has none", (visible, environment, sentence) => {
    const said: string[] = [];
    expect(bindingOf("node", { gpus: gpusOfHost(root), visible }, environment, logger(said), root)).toBeUndefined();
    expect(said).toEqual([expect.stringMatching(sentence)]);
  });
});
