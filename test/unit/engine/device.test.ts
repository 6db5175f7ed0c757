import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Writable } from "node:stream";
import { afterAll, beforeAll, beforeEach, describe, expect, test, vi } from "vitest";
import { chooseDevice } from "../../../src/engine/choose-device.js";
import type { FoundModule } from "../../../src/engine/kernel-module.js";
import { gpuIsVisible } from "../../../src/engine/visible-gpu.js";
import { DitrunError } from "../../../src/failure.js";
import { openLog } from "../../../src/launcher/logs.js";
import { isForGpu } from "../../../src/models/cost.js";
import { loadModel } from "../../../src/models/load.js";
import { builtKernels } from "../../../src/paths.js";

let folder: string;
let broken: FoundModule;
const none: FoundModule = { missing: "There is no nvcc." };
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "ditrun-test-"));
  const file = join(folder, "libditrun_cuda.so");
  writeFileSync(file, "no module");
  broken = { file, built: true };
});
afterAll(() => rmSync(folder, { recursive: true }));
beforeEach(() => void vi.stubEnv("DITRUN_KERNELS", ""));

/** Chooses with a CUDA module, or a sentence on why there is none, and, or not, a GPU to be seen. */
async function choose(wanted: "auto" | "cpu" | "cuda", cuda: FoundModule, visible: boolean) {
  let said = "";
  const stderr = new Writable({
    write(text, _encoding, done) {
      said += text;
      done();
    },
  });
  const choice = await chooseDevice(wanted, openLog("warn", undefined, { stderr }), {
    findKernels: (device) => (device === "cuda" ? cuda : { file: builtKernels("cpu"), built: true }),
    gpuIsVisible: () => visible,
  });
  return { choice, said };
}

describe("the CPU in place of a GPU", () => {
  test("is warned of where the CUDA module cannot be used, with the reason", async () => {
    const { choice, said } = await choose("auto", broken, false);
    expect(choice).toMatchObject({ device: "cpu", kernels: builtKernels("cpu") });
    expect(said).toMatch(
      /^ditrun: This runs on the CPU\. The CUDA module cannot be used: .*libditrun_cuda\.so could not/,
    );
    expect(choice.noGpu).toContain("The CUDA module cannot be used");
  });

  test("is warned of where a GPU is visible and there is no module, with why there is none", async () => {
    const { choice, said } = await choose("auto", none, true);
    expect(said).toBe("ditrun: This runs on the CPU. A GPU is visible, but not used. There is no nvcc.\n");
    expect(choice.noGpu).toContain("A GPU is visible");
  });

  test("is warned of where a release's module cannot use a GPU that is visible, and only there", async () => {
    const released = { ...broken, built: false };
    expect((await choose("auto", released, true)).said).toContain("The CUDA module cannot be used: ");
    const absent = await choose("auto", released, false);
    expect(absent).toMatchObject({ said: "", choice: { noGpu: "No GPU is visible." } });
  });

  test("needs no word where there is no GPU, or where it was chosen", async () => {
    const absent = await choose("auto", none, false);
    expect(absent).toMatchObject({ said: "", choice: { noGpu: "No GPU is visible." } });
    const chosen = await choose("cpu", broken, true);
    expect(chosen.said).toBe("");
    expect(chosen.choice.noGpu).toBeUndefined();
  });

  test("is not taken for --device cuda", async () => {
    for (const [file, message] of [
      [broken, /--device cuda cannot be used: .*could not be loaded/],
      [none, /needs the CUDA kernel module\. There is no nvcc\. Or use --device cpu\./],
    ] as const) {
      const refused = await choose("cuda", file, true).catch((error: unknown) => error);
      expect(refused).toBeInstanceOf(DitrunError);
      expect(refused).toMatchObject({ exitCode: 3, message: expect.stringMatching(message) });
    }
  });
});

test("models and sizes that are for a GPU", async () => {
  const tiny = await loadModel("wan-tiny");
  const names = ["dit", "wan-1.3b", "wan-14b", "dit-1k", "dit-tiny"];
  const forGpu = await Promise.all(names.map(async (name) => isForGpu(await loadModel(name))));
  expect(forGpu).toEqual([true, true, true, false, false]);
  expect([isForGpu(tiny, 72), isForGpu(tiny, 32_760)]).toEqual([false, true]);
  // Its weights alone, whatever the size of the video.
  expect(isForGpu(await loadModel("wan-14b"), 4)).toBe(true);
});

test("a GPU is visible as a device file", () => {
  const devices = join(folder, "dev");
  expect(gpuIsVisible(devices)).toBe(false);
  mkdirSync(devices);
  writeFileSync(join(devices, "nvidiactl"), "");
  expect(gpuIsVisible(devices)).toBe(false);
  writeFileSync(join(devices, "nvidia3"), "");
  expect(gpuIsVisible(devices)).toBe(true);
});
