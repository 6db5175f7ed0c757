import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { bindingOf } from "../../../src/cli/run/numa.js";
import { coresBeside, gpusOfHost, visibleGpus } from "../../../src/launcher/gpus.js";

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

test("the cores beside a GPU, where its host tells of any", () => {
  expect(gpusOfHost(root).map((gpu) => coresBeside(gpu, root))).toEqual(["0-15,32-47", "16-31", undefined]);
});

describe("--numa-binding", () => {
  const logger = (said: string[]) => {
    const take = (sentence: string) => void said.push(sentence);
    return { error: take, warn: take, info: take, debug: () => undefined };
  };
  const command = ["python3", "train.py"] as const;

  test("keeps a rank on the cores of its GPU, by the words that say which that is", () => {
    const said: string[] = [];
    const bind = bindingOf(gpusOfHost(root), ["1", "GPU-aa", "2"], process.env, logger(said), root);
    expect(bind?.(0, command)).toEqual([expect.stringMatching(/\/taskset$/), "--cpu-list", "16-31", ...command]);
    expect(bind?.(1, command).slice(1, 3)).toEqual(["--cpu-list", "0-15,32-47"]);
    expect(bind?.(2, command)).toBe(command);
    expect(bind?.(3, command)).toBe(command);
    expect(said).toEqual([]);
  });

  test.each([
    [[], process.env, /^--numa-binding has no effect: this host tells no cores beside a GPU\.$/],
    [["0"], { PATH: "/nowhere" }, /^--numa-binding has no effect: there is no taskset/],
  ])("is told to have no effect where it has none", (visible, environment, sentence) => {
    const said: string[] = [];
    expect(bindingOf(gpusOfHost(root), visible, environment, logger(said), root)).toBeUndefined();
    expect(said).toEqual([expect.stringMatching(sentence)]);
  });
});
