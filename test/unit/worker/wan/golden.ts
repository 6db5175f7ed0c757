import { readFile } from "node:fs/promises";
import { join, resolve } from "node:path";
import { z } from "zod";
import { detectLayout } from "../../../../src/models/wan/checkpoint-layout.js";
import { WanTokenizer } from "../../../../src/models/wan/text/tokenizer.js";
import type { WanWeights } from "../../../../src/protocol/job.js";
import type { Store } from "../../../../src/worker/store.js";

export const caseFile = "test/golden/data/wan/case.safetensors";

/** The checkpoint of random weights that the reference tensors were made with, its copy in the other layout, and its sizes. */
export const goldenCheckpoints = {
  original: resolve("test/golden/data/wan/original"),
  diffusers: resolve("test/golden/data/wan/diffusers"),
} as const;
export const goldenModel = resolve("test/golden/data/wan/model.yaml");

export const layouts = ["original", "diffusers"] as const;
export type Layout = (typeof layouts)[number];

export const checkpointOf = (layout: Layout) => detectLayout(goldenCheckpoints[layout]);

export async function weightsOf(layout: Layout): Promise<WanWeights> {
  const { transformer, textEncoder, vae } = await checkpointOf(layout);
  return {
    ...{ from: "checkpoint", transformer: transformer.weights },
    ...{ textEncoder: textEncoder.weights, vae: vae.weights },
  };
}

const texts = z.object({ prompt: z.string(), negative: z.string() });

/** Token ids of the golden prompt or negative prompt. */
export async function readIds(which: "prompt" | "negative"): Promise<Int32Array> {
  const tokenizer = await WanTokenizer.open(join(goldenCheckpoints.original, "google/umt5-xxl"));
  return tokenizer.encode(texts.parse(JSON.parse(await readFile("test/golden/data/wan/texts.json", "utf8")))[which]);
}

/** What a worker that is alone shares with itself. */
export function soloStore(): Store {
  const values = new Map<string, Uint8Array>();
  return {
    rank: 0,
    size: 1,
    async put(key, value) {
      values.set(key, value);
    },
    async get(key) {
      const value = values.get(key);
      if (!value) throw new Error(`Nobody has put ${key}.`);
      return value;
    },
    async barrier() {},
    largest: async (_, value) => value,
    time: async () => Number(process.hrtime.bigint()) / 1e3,
    async emit() {},
    step: () => async () => ({ preview: false }),
    async fault(error) {
      throw error;
    },
  };
}
