#!/usr/bin/env node
// How many videos of models/wan-tiny show what their prompts say, by steps. Training never showed the prompts' combinations of words.
// A table on stdout. Needs `npm run build`.
//   npx tsx bench/quality.ts [--prompts 100] [--size 96*96] [--steps 4,8,12] [--fp8] [--guide-scale 4] [--shift 3] [--solver unipc]
import { parseArgs } from "node:util";
import Table from "cli-table3";
import { z } from "zod";
import { openEngine } from "../src/index.js";
import { heldOutClips, promptOf } from "./quality/clips.js";
import { framesOf } from "./quality/frames.js";
import { shownBy } from "./quality/measure.js";

const { values: options } = parseArgs({
  options: {
    model: { type: "string", default: "tiny" },
    prompts: { type: "string", default: "100" },
    size: { type: "string", default: "96*96" },
    steps: { type: "string", default: "4,8,12" },
    fp8: { type: "boolean", default: false },
    "guide-scale": { type: "string", default: "4" },
    shift: { type: "string", default: "3" },
    solver: { type: "string", default: "unipc" },
  },
});
const [width, height] = options.size.split("*").map(Number);
const request = {
  ...{ width, height, frames: 17, solver: z.enum(["unipc", "dpm++"]).parse(options.solver) },
  ...{ guideScale: Number(options["guide-scale"]), shift: Number(options.shift) },
};

const engine = await openEngine({
  model: options.model,
  plan: options.fp8 ? "single-fp8" : "single",
  nproc: 1,
  device: "cpu",
});
const clips = heldOutClips(Number(options.prompts));
const table = new Table({
  head: ["steps", "colour", "background", "motion", "all three"],
  style: { head: [], border: [] },
});
try {
  for (const steps of options.steps.split(",").map(Number)) {
    const right: ReturnType<typeof shownBy>[] = [];
    for (const [seed, clip] of clips.entries()) {
      right.push(shownBy(clip, await framesOf(engine, { ...request, prompt: promptOf(clip), steps, seed })));
    }
    const counts = [
      ...(["colour", "background", "motion"] as const).map((key) => right.filter((each) => each[key]).length),
      right.filter(({ colour, background, motion }) => colour && background && motion).length,
    ];
    table.push([`${steps}`, ...counts.map((count) => `${count} of ${clips.length}`)]);
  }
} finally {
  await engine.close();
}
process.stdout.write(
  `${options.size}, ${options.fp8 ? "fp8" : "bf16"}, guidance ${request.guideScale}\n${table.toString()}\n`,
);
