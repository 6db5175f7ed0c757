import { describe, expect, it } from "vitest";
import { openSafetensors } from "../../../src/formats/safetensors.js";
import { loadWanModel } from "../../../src/models/load.js";
import { torchCpuNoise } from "../../../src/sampling/torch-cpu-noise.js";
import { torchCudaNoise } from "../../../src/sampling/torch-cuda-noise.js";
import { hostNoise } from "../../../src/worker/tasks/wan-noise.js";
import { readTensor } from "../../compare.js";
import { checkpointOf } from "../worker/wan/golden.js";

const recorded = "test/golden/data/noise.safetensors";
const counts: Readonly<Record<string, number>> = {
  small: 16 * 3 * 8 * 12,
  odd: 16 * 6 * 10,
  one: 16 * 2 * 4,
  "480p": 16 * 21 * 60 * 104,
  "720p": 16 * 21 * 90 * 160,
};
const large = 5317905679503427392n; // as the published code printed one

async function readIndex(name: string): Promise<number[] | undefined> {
  const file = await openSafetensors(recorded);
  try {
    if (![...file.names()].includes(name)) return undefined;
    const bytes = await file.read(name);
    return Array.from(new BigInt64Array(bytes.slice().buffer), Number);
  } finally {
    await file.close();
  }
}

describe.each([
  ["cpu", torchCpuNoise],
  ["cuda", torchCudaNoise],
] as const)("what torch.randn draws: %s", (device, draw) => {
  it.each([
    [42n, "small"],
    [0n, "odd"],
    [42n, "odd"],
    [large, "odd"],
    [large, "one"],
    [large, "480p"],
    [0n, "720p"],
  ])("seed %d, %s", async (seed, shape) => {
    const name = `${device}.${seed}.${shape}`;
    const expected = await readTensor(recorded, name);
    const values = draw(seed, counts[shape] ?? 0);
    expect(values.length).toBe(counts[shape]);
    const index = await readIndex(`${name}.index`);
    expect(index === undefined).toBe(!shape.endsWith("p"));
    const largest = expected.reduce((most, value, i) => {
      const own = values[index ? (index[i] ?? -1) : i] ?? Number.NaN;
      return Math.max(most, Math.abs(own - value));
    }, 0);
    expect(largest).toBeLessThan(1e-6);
  });
});

it("draws the last 16 numbers anew where they fill no block", () => {
  const [whole, more] = [torchCpuNoise(3n, 16), torchCpuNoise(3n, 21)];
  expect(more.slice(0, 5)).toEqual(whole.slice(0, 5));
  for (let i = 5; i < 16; i++) expect(more[i]).not.toBe(whole[i]);
  expect(more.every((value) => Math.abs(value) < 6)).toBe(true);
});

it("draws fewer than 16 numbers on a CPU as PyTorch does: torch.manual_seed(0), torch.randn(6)", () => {
  // As PyTorch prints them.
  const printed = [1.541, -0.2934, -2.1788, 0.5684, -1.0845, -1.3986];
  for (const count of [6, 5, 1]) {
    const values = [...torchCpuNoise(0n, count)];
    expect(values.map((value) => Number(value.toFixed(4)))).toEqual(printed.slice(0, count));
  }
});

it("a CPU generator takes 32 bits of a seed, the GPU's all 64", () => {
  const beyond = 42n + 2n ** 32n;
  expect(torchCpuNoise(beyond, 100)).toEqual(torchCpuNoise(42n, 100));
  for (const other of [beyond, 42n + 2n ** 63n]) {
    expect(torchCudaNoise(other, 100)).not.toEqual(torchCudaNoise(42n, 100));
  }
});

it("gives a task the noise of its seed in the latent's shape, and leaves ditrun's own to the device", async () => {
  const model = await loadWanModel(await checkpointOf("original"));
  const task = { model, size: { frames: 3, height: 8, width: 12 }, seed: String(large) };
  expect(await hostNoise({ ...task, generator: "torch-cpu" })).toEqual(torchCpuNoise(large, counts.small ?? 0));
  expect(await hostNoise({ ...task, generator: "torch-cuda" })).toEqual(torchCudaNoise(large, counts.small ?? 0));
  expect(await hostNoise({ ...task, generator: "ditrun" })).toBeUndefined();
  expect(await hostNoise(task)).toBeUndefined();
});
