import { resolve } from "node:path";
import type { ArgumentsCamelCase, InferredOptionTypes, Options } from "yargs";
import { DitrunError, exitCodes } from "../../failure.js";
import type { NamedFile } from "../../files/apart.js";
import type { Progress } from "../../hub/download.js";
import type { Log } from "../../launcher/logs.js";
import { loadModel } from "../../models/load.js";
import { isWan } from "../../models/registry.js";
import { wanTokens } from "../../models/schema.js";
import { modelSource } from "../../models/wan/model-source.js";
import { presetOf, published, type WanPreset } from "../../models/wan/presets.js";
import { bytesAsTokens, tokenize } from "../../models/wan/text/texts.js";
import { latentOf } from "../../models/wan/video-size.js";
import { planPrecision } from "../../plan/resolve.js";
import { type Plan, vaeDtypeSchema } from "../../plan/schema.js";
import { noiseGenerators, type WanGenerateTask } from "../../protocol/job.js";
import { planSampling } from "../../sampling/scheduler.js";
import type { Command } from "../command.js";
import { describeRuns } from "../dry-run.js";
import { makeVideos } from "../make-videos.js";
import { globalFiles, reads } from "../named-files.js";
import { ownOptions, wholeNumber } from "../options.js";
import { profileFiles } from "../profiling.js";
import { checkPromptOptions, promptsOf } from "../prompts.js";
import type { Session } from "../session.js";
import { filesWritten, outputsOf } from "../video-outputs.js";
import { chosenVideo, videoOptions, wanModelName } from "../wan-options.js";
import { accuracyFiles, runWanAccuracy, wanAccuracyOptions } from "./accuracy.js";
import { runWanProfile, wanProfileOptions } from "./wan-profile.js";

function decimal(name: string, allowed: (value: number) => boolean, what: string) {
  return (text: string | undefined) => {
    if (text === undefined) return undefined;
    const value = Number(text);
    if (text.trim() === "" || !Number.isFinite(value) || !allowed(value)) {
      throw new DitrunError("ERR_OPTION_VALUE", `--${name} is "${text}"; it must be ${what}.`);
    }
    return value;
  };
}

const text = { type: "string", requiresArg: true } as const;

const options = {
  prompt: {
    ...text,
    describe: "What the video should show; given again, another video of the same load",
    // yargs gives a list of what is given several times.
    coerce: (given: string | string[] | undefined) => (given === undefined ? undefined : [given].flat()),
  },
  prompts: {
    ...text,
    describe: "FILE with a prompt a line, each for a video; blank lines and lines that start with # do not count",
  },
  "negative-prompt": { ...text, describe: "What it should not show [default: the published one]" },
  ...videoOptions,
  steps: { ...text, describe: "Sampling steps [default: 50; tiny: 6]", coerce: wholeNumber("steps", 1) },
  solver: { choices: ["unipc", "dpm++"], requiresArg: true, default: published.solver, describe: "How to sample" },
  shift: {
    ...text,
    describe: `Above 1: more of the steps at high noise; the authors advise 8 to 12 for 1.4B [default: ${published.shift}, as in their code]`,
    coerce: decimal("shift", (value) => value > 0, "a number above 0"),
  },
  "guide-scale": {
    ...text,
    describe: `How much the prompt counts; 1 leaves out the negative prompt; the authors advise 6 for 1.4B [default: ${published.guideScale}, as in their code]`,
    coerce: decimal("guide-scale", (value) => value >= 0 && value <= 1000, "a number from 0 to 1000"),
  },
  "bf16-steps": {
    ...text,
    describe:
      "With --fp8: leave so many of the first and of the last steps in bf16; the weights are held twice, as bf16 and as e4m3 [default: 0]",
    coerce: wholeNumber("bf16-steps", 0),
  },
  "vae-dtype": {
    choices: vaeDtypeSchema.options,
    requiresArg: true,
    describe:
      "What the VAE computes in; fp16 is eight times finer than bf16 at 1.05 times the time, up to values of a million [default: the plan's; fp16, with --dtype fp32 fp32]",
  },
  fps: {
    ...text,
    describe: `Frames per second [default: ${published.fps}]`,
    coerce: decimal("fps", (value) => value >= 1 && value <= 1000, "a number from 1 to 1000"),
  },
  out: {
    ...text,
    default: "video.mp4",
    describe:
      "FILE.mp4, or FOLDER/ for PNG frames; where that is there already, and for each prompt after the first, the next free number is taken",
  },
  overwrite: {
    type: "boolean",
    default: false,
    describe: "Replace what --out and --dump name; prompt N replaces number N",
  },
  "ckpt-dir": { ...text, describe: "Folder with the checkpoint [default: the Hugging Face cache]" },
  download: { type: "boolean", default: false, describe: "Download the checkpoint into the cache if it is not there" },
  verify: {
    type: "boolean",
    default: false,
    describe: "Hash every file of a checkpoint in the cache before it is used",
  },
  weights: {
    choices: ["checkpoint", "random"],
    requiresArg: true,
    default: "checkpoint",
    describe: "random: a full size without any file, to measure",
  },
  memory: {
    ...text,
    describe: "GiB of device memory that each worker may use [default: what is free]",
    coerce: decimal("memory", (value) => value > 0 && value <= 1e6, "a number of GiB above 0 and at most 1000000"),
  },
  noise: {
    choices: noiseGenerators,
    requiresArg: true,
    describe:
      "What --seed draws: torch-cpu as ComfyUI, torch-cuda as the published code on an H100 or H200 [default: ditrun]",
  },
  "init-noise": { ...text, describe: "Initial noise: FILE.safetensors[:TENSOR] [default tensor: noise]" },
  dump: {
    ...text,
    describe: "Write context, context_null, latent.N and video to FILE.safetensors, of prompt N to FILE-N.safetensors",
  },
} as const satisfies Record<string, Options>;

type GenerateArguments = ArgumentsCamelCase<InferredOptionTypes<typeof options>>;

/** Wan 2.1: `generate` makes a video from a prompt, `profile` measures the transformer, `accuracy` compares its layouts. */
export const wan: Command = {
  name: "wan",
  subcommands: ["generate", "profile", "accuracy"],
  example: {
    command: '$0 --nproc 8 --cfg 2 --cp 4 wan --model 1.4B generate --prompt "…"',
    describe: "A video; four workers each for the prompt and the negative prompt",
  },
  register: (parser, select) =>
    parser.command(wan.name, "Wan 2.1 text-to-video: ditrun wan generate --prompt TEXT", (command) =>
      command
        .command(
          "generate",
          "Make a video from a prompt",
          (generate) =>
            generate
              .options(options)
              .group(Object.keys(options), ownOptions)
              .check(checkPromptOptions)
              .example(wan.example.command, wan.example.describe),
          (chosen) => select(chosen, generateFiles(chosen), (session) => run(chosen, session)),
        )
        .command(
          "profile",
          "Measure one forward of the transformer with random weights: latency, memory, time by phase and by kernel",
          (measure) =>
            measure
              .options(wanProfileOptions)
              .group(Object.keys(wanProfileOptions), ownOptions)
              .example("$0 wan --model 14B --size 832*480 profile", "One forward of the larger model"),
          (chosen) => select(chosen, profileFiles(chosen), (session) => runWanProfile(chosen, session)),
        )
        .command(
          "accuracy",
          "Compare one step of guidance under a plan with one device's, with random weights",
          (compare) =>
            compare
              .options(wanAccuracyOptions)
              .group(Object.keys(wanAccuracyOptions), ownOptions)
              .example("$0 --nproc 4 --cfg 2 --cp 2 wan accuracy", "Guidance and tokens divided over four workers"),
          (chosen) => select(chosen, accuracyFiles(chosen), (session) => runWanAccuracy(chosen, session)),
        )
        .demandCommand(1, "Name what to do with Wan: generate, profile or accuracy"),
    ),
};

/** The files that its options read. */
function filesRead({ prompts, ckptDir, initNoise }: GenerateArguments): NamedFile[] {
  const noise = initNoise && noiseParts(initNoise).file;
  return reads({ "--prompts": prompts, "--ckpt-dir": ckptDir, "--init-noise": noise });
}

/** The files that its options name. */
function generateFiles(chosen: GenerateArguments): NamedFile[] {
  const several = chosen.prompts !== undefined || (chosen.prompt?.length ?? 0) > 1;
  return [...filesRead(chosen), ...filesWritten(chosen, several)];
}

async function run(chosen: GenerateArguments, session: Session): Promise<number> {
  const { log, options: globals, seed } = session;
  const name = wanModelName(session);
  const preset = presetOf(name);
  const prompts = await promptsOf(chosen);
  const { size, frames } = chosenVideo(chosen, preset);
  const sampling = samplingOf(chosen, preset);
  const noise = noiseOf(chosen);
  const { overwrite } = chosen;
  const format = { ...size, frames, fps: chosen.fps ?? published.fps };
  const outputs = await outputsOf(chosen, prompts, format, [...globalFiles(globals), ...filesRead(chosen)]);

  const latent = latentOf(size, frames);
  if (preset !== undefined) {
    const config = await loadModel(preset.config);
    // Before anything is downloaded for it.
    if (isWan(config)) session.refuseOnCpu(config, wanTokens(config, latent));
  }
  const source = await modelSource({
    model: name,
    preset,
    weights: chosen.weights === "random" ? "random" : "checkpoint",
    seed,
    directory: chosen.ckptDir,
    download: chosen.download && !globals.dryRun,
    verify: chosen.verify,
    environment: process.env,
    onProgress: downloadLines(log),
    onNote: (sentence) => log.logger.info(sentence),
  });
  const { model, weights } = source;
  const tokens = wanTokens(model, latent);
  const plan = await session.plan(model, { ...globals, vaeDtype: chosen.vaeDtype }, tokens);
  if (sampling.guideScale === 1 && plan.mesh.cfg > 1) {
    throw new DitrunError(
      "ERR_OPTION_CONFLICT",
      `--guide-scale 1 leaves out the negative prompt, so cfg must be 1, but it is ${plan.mesh.cfg}: give those workers to --cp.`,
    );
  }
  const bf16Steps = bf16StepsOf(chosen, sampling.steps, plan);
  if (globals.dryRun) {
    await describeRuns(session, model, [plan], tokens, prompts.length);
    return exitCodes.ok;
  }

  const negative = { name: "The negative prompt", text: chosen.negativePrompt ?? published.negativePrompt };
  const texts = [...prompts, negative];
  const { warnings, ids } =
    source.tokenizer === undefined
      ? bytesAsTokens(texts, model.textEncoder?.vocabulary ?? 256, model.textLength)
      : await tokenize(texts, source.tokenizer, model.textLength);
  for (const warning of warnings) log.logger.warn(warning);
  const task: Omit<WanGenerateTask, "ids"> = {
    ...{ kind: "wan-generate", model, plan, weights, size: latent, sampling, seed },
    ...noise,
    ...(bf16Steps === 0 ? {} : { bf16Steps }),
    ...(chosen.memory === undefined ? {} : { memoryBytes: chosen.memory * 2 ** 30 }),
    ...(overwrite ? {} : { replace: false }),
  };
  const wanted = outputs.map(({ prompt, out, dump }, index) => ({
    prompt,
    task: {
      ...task,
      ids: { prompt: ids[index] ?? [], negative: ids.at(-1) ?? [] },
      ...(dump === undefined ? {} : { dump: resolve(dump) }),
    },
    target: { out, overwrite, ...format },
  }));
  await makeVideos(session, wanted, source.description);
  return exitCodes.ok;
}

/** @throws DitrunError for settings that no schedule has. */
function samplingOf(chosen: GenerateArguments, preset: WanPreset | undefined): WanGenerateTask["sampling"] {
  const solver = chosen.solver === "dpm++" ? "dpm++" : "unipc";
  const steps = chosen.steps ?? preset?.steps ?? 50;
  const shift = chosen.shift ?? published.shift;
  planSampling(solver, steps, shift);
  return { solver, steps, shift, guideScale: chosen.guideScale ?? published.guideScale };
}

/** @throws DitrunError where nothing is in e4m3, by the plan or because all steps would be in bf16. */
function bf16StepsOf({ bf16Steps = 0 }: GenerateArguments, steps: number, plan: Plan): number {
  if (bf16Steps === 0) return 0;
  if (planPrecision(plan) !== "e4m3") {
    throw new DitrunError(
      "ERR_OPTION_CONFLICT",
      `--bf16-steps ${bf16Steps} leaves steps out of fp8, but plan ${plan.name} has nothing in fp8: add --fp8, or leave it out.`,
    );
  }
  if (2 * bf16Steps < steps) return bf16Steps;
  throw new DitrunError(
    "ERR_OPTION_VALUE",
    `--bf16-steps ${bf16Steps} at both ends leaves none of the ${steps} steps for fp8: choose at most ${Math.floor((steps - 1) / 2)}, or leave out --fp8.`,
  );
}

/** A line for each percent of a download. */
function downloadLines({ logger }: Log): (progress: Progress) => void {
  let percent = 0;
  return ({ doneBytes, totalBytes, file }) => {
    const now = Math.floor((100 * doneBytes) / totalBytes);
    if (now === percent) return;
    percent = now;
    logger.info(`Downloading: ${now} % of ${(totalBytes / 1e9).toFixed(1)} GB (${file}).`);
  };
}

/** @throws DitrunError where noise is to be drawn and read at once. */
function noiseOf({ initNoise, noise }: GenerateArguments): Pick<WanGenerateTask, "noise" | "generator"> {
  if (initNoise === undefined) return noise === undefined ? {} : { generator: noise };
  if (noise === undefined) return { noise: noiseFile(initNoise) };
  throw new DitrunError(
    "ERR_OPTION_CONFLICT",
    `--init-noise ${initNoise} is the noise itself, so nothing is drawn: leave out --noise ${noise}.`,
  );
}

/** `FILE.safetensors[:TENSOR]`; no file where it is anything else. */
function noiseParts(text: string): { file: string | undefined; tensor: string } {
  const [, file, tensor = "noise"] = /^(.+\.safetensors)(?::(.+))?$/.exec(text) ?? [];
  return { file, tensor };
}

/** @throws DitrunError for what names no such file. */
function noiseFile(text: string): { file: string; tensor: string } {
  const { file, tensor } = noiseParts(text);
  if (file !== undefined) return { file: resolve(file), tensor };
  throw new DitrunError(
    "ERR_OPTION_VALUE",
    `--init-noise is "${text}"; it must be FILE.safetensors or FILE.safetensors:TENSOR.`,
  );
}
