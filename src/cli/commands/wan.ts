import { basename, dirname, resolve } from "node:path";
import { absolute, requireTwo, samplingFor } from "../../engine/requests.js";
import { DitrunError, exitCodes } from "../../failure.js";
import type { NamedFile } from "../../files/apart.js";
import type { Logger } from "../../launcher/logger.js";
import { isWan } from "../../models/registry.js";
import { wanTokens } from "../../models/schema.js";
import type { NamedFiles } from "../../models/wan/components.js";
import { describeLora } from "../../models/wan/lora/open-lora.js";
import { modelSource } from "../../models/wan/model-source.js";
import { published } from "../../models/wan/presets.js";
import { bytesAsTokens, tokenize } from "../../models/wan/text/texts.js";
import { latentOf } from "../../models/wan/video-size.js";
import { checkPlan } from "../../plan/check.js";
import { planPrecision, planTitle } from "../../plan/names.js";
import { withoutGuidance } from "../../plan/resolve.js";
import type { Plan } from "../../plan/schema.js";
import { isUnguided } from "../../protocol/expert.js";
import type { WanGenerateTask } from "../../protocol/job.js";
import type { Body, Context } from "../command.js";
import { describeRuns } from "../dry-run.js";
import { makeVideos } from "../make-videos.js";
import { ModelSession } from "../model-session.js";
import { globalFiles, reads } from "../named-files.js";
import type { GenerateOptions } from "../options/generate.js";
import type { ModelRun } from "../options/model-run.js";
import { checkPromptOptions, promptsOf } from "../prompts.js";
import { rehearse } from "../rehearsal.js";
import { downloadProgress } from "../show-progress.js";
import { videoMetadata } from "../video-metadata.js";
import { filesWritten, outputsOf } from "../video-outputs.js";
import { chosenVideo, chosenWan } from "../wan-options.js";

type Chosen = GenerateOptions & ModelRun;

/** `ditrun wan generate`. */
export const wanGenerate: Body<Chosen> = { files: generateFiles, run };

/** The files that its options read. */
function filesRead(chosen: GenerateOptions): NamedFile[] {
  const { prompts, ckptDir, transformer, transformer2, textEncoder, vae, initNoise, lora, lora2 } = chosen;
  const noise = initNoise && noiseParts(initNoise).file;
  return [
    ...reads({ "--prompts": prompts, "--ckpt-dir": ckptDir, "--init-noise": noise }),
    ...reads({ "--transformer": transformer, "--transformer-2": transformer2 }),
    ...reads({ "--text-encoder": textEncoder, "--vae": vae }),
    ...lora.flatMap(({ file }) => reads({ "--lora": file })),
    ...lora2.flatMap(({ file }) => reads({ "--lora-2": file })),
  ];
}

/** The files that its options name. @throws DitrunError for a line without prompts, or with two kinds of them. */
function generateFiles(chosen: GenerateOptions): NamedFile[] {
  checkPromptOptions(chosen);
  const several = chosen.prompts !== undefined || (chosen.prompt?.length ?? 0) > 1;
  return [...filesRead(chosen), ...filesWritten(chosen, several)];
}

async function run(chosen: Chosen, context: Context): Promise<number> {
  const session = await ModelSession.open(chosen, context);
  const { log, options: globals, seed } = session;
  const found = await chosenWan(session, chosen.weights === "random" ? {} : chosen);
  const { preset } = found;
  const prompts = await promptsOf(chosen);
  const { size, frames } = chosenVideo(chosen, preset);
  const named = { name: found.name, boundary: isWan(found.model) ? found.model.boundary : undefined };
  requireTwo(named, chosen.lora2, chosen.transformer2);
  const loras = absolute(chosen.lora);
  const loras2 = absolute(chosen.lora2);
  for (const doubt of found.directory === undefined ? roleDoubts(chosen) : []) log.logger.warn(doubt);
  const asked = samplingOf(chosen);
  const usual = { preset, loras, loras2, samplingPreset: undefined };
  // What the line itself gets wrong is told before anything is downloaded.
  samplingFor(asked, { ...usual, model: named, weights: { from: "random", seed } });
  const noise = noiseOf(chosen);
  const { overwrite } = chosen;
  const format = { ...size, frames, fps: chosen.fps ?? published.fps };
  const outputs = await outputsOf(chosen, prompts, format, [...globalFiles(globals), ...filesRead(chosen)]);

  const latent = latentOf(size, frames);
  // Before anything is downloaded for it.
  if (isWan(found.model)) session.refuseOnCpu(found.model, wanTokens(found.model, latent));
  const download = downloadProgress(session);
  const source = await modelSource({
    found,
    weights: chosen.weights === "random" ? "random" : "checkpoint",
    seed,
    directory: chosen.ckptDir,
    files: {
      transformer: chosen.transformer,
      ...namedSecond(chosen),
      "text encoder": chosen.textEncoder,
      VAE: chosen.vae,
    },
    download: chosen.download && !globals.dryRun,
    verify: chosen.verify,
    environment: process.env,
    onProgress: download.show,
    onNote: (sentence) => log.logger.info(sentence),
  });
  download.end();
  const { model, weights } = source;
  const tokens = wanTokens(model, latent);
  for (const lora of [...loras, ...loras2]) log.logger.info(await describeLora(lora, model));
  const { sampling, told } = samplingFor(asked, { ...usual, model, weights });
  if (told !== undefined) log.logger.info(told);
  const oneForward = isUnguided(sampling);
  const flags = { ...globals, vaeDtype: chosen.vaeDtype };
  const given = await session.plan(model, flags, { size: latent, oneForward });
  const plan = oneForward ? planOfOneForward(given, globals.cfg, log.logger) : given;
  if (plan !== given) checkPlan(plan, model, tokens);
  const bf16Steps = bf16StepsOf(chosen, sampling.steps, plan);
  const negative = { name: "The negative prompt", text: chosen.negativePrompt ?? published.negativePrompt };
  const texts = [...prompts, negative];
  const { warnings, ids, unknown } =
    source.tokenizer === undefined
      ? bytesAsTokens(texts, model.textEncoder?.vocabulary ?? 256, model.textLength)
      : await tokenize(texts, source.tokenizer, model.textLength);
  // Of the prompts only: the published negative prompt need not be known.
  const unclear = unknown.slice(0, prompts.length).filter((sentence) => sentence !== undefined);
  for (const warning of [...warnings, ...unclear]) log.logger.warn(warning);
  const task: Omit<WanGenerateTask, "ids"> = {
    ...{ kind: "wan-generate", model, plan, weights, size: latent, sampling, seed },
    ...noise,
    ...(loras.length === 0 ? {} : { loras }),
    ...(loras2.length === 0 ? {} : { loras2 }),
    ...(bf16Steps === 0 ? {} : { bf16Steps }),
    ...(chosen.memory === undefined ? {} : { memoryBytes: chosen.memory * 2 ** 30 }),
    ...(overwrite ? {} : { replace: false }),
  };
  const wanted = outputs.map(({ prompt, out, dump, html, trace }, index) => ({
    ...{ prompt, html, trace },
    negativePrompt: negative.text,
    task: {
      ...task,
      ids: { prompt: ids[index] ?? [], negative: ids.at(-1) ?? [] },
      ...(dump === undefined ? {} : { dump: resolve(dump) }),
      ...(html === undefined && trace === undefined ? {} : { trace: true }),
    },
    target: {
      ...{ out, overwrite, ...format },
      ...(chosen.metadata ? { metadata: videoMetadata(prompt, negative, task, format) } : {}),
    },
  }));
  const [first] = wanted;
  if (globals.dryRun && first) {
    const memory = await rehearse(session, first.task);
    await describeRuns(session, model, [plan], { tokens, videos: prompts.length, memory });
    return exitCodes.ok;
  }
  await makeVideos(session, wanted, source.description);
  return exitCodes.ok;
}

/** What the options say of sampling. */
function samplingOf(chosen: GenerateOptions) {
  const { preset, solver, steps, shift, guideScale, boundary, sigmas, initialScale } = chosen;
  return { preset, solver, steps, shift, guideScale, boundary, sigmas, initialScale };
}

/** Names of files are only hints, so the options decide. @returns sentences where the two contradict each other. */
function roleDoubts({ transformer, transformer2 }: GenerateOptions): string[] {
  const name = (file = "") => `${basename(dirname(file))}/${basename(file)}`;
  const doubts: string[] = [];
  if (/low[-_ ]?noise/i.test(name(transformer)))
    doubts.push(`--transformer ${transformer} is by its name for low noise, which is --transformer-2.`);
  if (/high[-_ ]?noise/i.test(name(transformer2)))
    doubts.push(`--transformer-2 ${transformer2} is by its name for high noise, which is --transformer.`);
  if (transformer2 === undefined && /high[-_ ]?noise/i.test(name(transformer)))
    doubts.push(`--transformer ${transformer} is by its name one of two: give the other with --transformer-2.`);
  return doubts;
}

/** @throws DitrunError where the second transformer's file is given without the first's. */
function namedSecond({ transformer, transformer2, model, ckptDir }: Chosen): NamedFiles {
  if (transformer2 === undefined) return {};
  if (transformer !== undefined || model !== undefined || ckptDir !== undefined)
    return { "second transformer": transformer2 };
  throw new DitrunError(
    "ERR_OPTION_CONFLICT",
    `--transformer-2 ${transformer2} is the second of two transformers: give the first with --transformer, or --model 2.2-T2V-A14B.`,
  );
}

/**
 * Guidance 1 makes one forward a step: the workers of a second one share the tokens instead.
 * @param cfg as the line has it. @throws DitrunError where that asks for a second forward.
 */
function planOfOneForward(plan: Plan, cfg: number | undefined, logger: Logger): Plan {
  if (plan.mesh.cfg === 1) return plan;
  if (cfg !== undefined)
    throw new DitrunError(
      "ERR_OPTION_CONFLICT",
      `Guidance 1 leaves out the negative prompt, so cfg must be 1, but --cfg is ${cfg}: give those workers to --cp.`,
    );
  const merged = withoutGuidance(plan);
  logger.info(`Guidance 1 makes one forward a step, so plan ${plan.name} runs as ${planTitle(merged)}.`);
  return merged;
}

/** @throws DitrunError where nothing is in e4m3, by the plan or because all steps would be in bf16. */
function bf16StepsOf({ bf16Steps = 0 }: GenerateOptions, steps: number, plan: Plan): number {
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

/** @throws DitrunError where noise is to be drawn and read at once. */
function noiseOf({ initNoise, noise }: GenerateOptions): Pick<WanGenerateTask, "noise" | "generator"> {
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
