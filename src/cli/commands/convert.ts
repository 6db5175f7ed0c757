import { resolve } from "node:path";
import { z } from "zod";
import { absolute } from "../../engine/requests.js";
import { DitrunError, exitCodes } from "../../failure.js";
import { checkDocument } from "../../files/documents.js";
import { checkNewFile } from "../../files/output-file.js";
import { openTensors } from "../../formats/open-tensors.js";
import { checkPartial, partialName } from "../../formats/partial-safetensors.js";
import { describeLora } from "../../models/wan/lora/open-lora.js";
import { transformerSource } from "../../models/wan/model-source.js";
import { hasTokenizer } from "../../models/wan/text/tokenizer-source.js";
import { planSchema } from "../../plan/schema.js";
import type { WanConvertTask } from "../../protocol/job.js";
import { type WanConvertRank, wanConvertRankSchema } from "../../protocol/results.js";
import { packageVersion } from "../../version.js";
import { byteSize, threeDigits } from "../../views/figures.js";
import type { Body, Context } from "../command.js";
import { reads } from "../named-files.js";
import { readOptions } from "../option.js";
import type { ConvertOptions } from "../options/convert.js";
import { launchOptions } from "../options/launch.js";
import { Session } from "../session.js";
import { downloadProgress, showProgress } from "../show-progress.js";
import { chosenWan } from "../wan-options.js";

/** `ditrun convert --to bf16|e4m3 … OUT`. */
export const convert: Body<ConvertOptions> = { files: filesRead, run };

function filesRead({ ckptDir, transformer, textEncoder, lora }: ConvertOptions) {
  return [
    ...reads({ "--ckpt-dir": ckptDir, "--transformer": transformer, "--text-encoder": textEncoder }),
    ...lora.flatMap(({ file }) => reads({ "--lora": file })),
  ];
}

/** What is converted, and what a reader is told of it. */
interface Source {
  readonly model: WanConvertTask["model"];
  readonly file: string;
  readonly notes: readonly string[];
}

async function run(chosen: ConvertOptions, context: Context): Promise<number> {
  const { to, overwrite, dryRun } = chosen;
  const [out, more] = context.rest;
  if (to === undefined || out === undefined || more !== undefined)
    throw new DitrunError(
      "ERR_COMMAND_LINE",
      "convert needs --to and one file to write: ditrun convert --to bf16 --model tiny OUT. See ditrun convert --help.",
    );
  await checkNewFile("convert", out, overwrite);
  await checkPartial(out);
  const session = await Session.open({ ...readOptions(launchOptions, new Map()), ...chosen }, context);
  const { model, file, notes } =
    chosen.textEncoder === undefined
      ? await transformerOf(session, chosen)
      : await textEncoderOf(chosen, chosen.textEncoder);
  const { transformer } = model;
  const loras = absolute(chosen.lora);
  if (transformer) for (const lora of loras) session.log.logger.info(await describeLora(lora, transformer));
  for (const note of notes) session.log.logger.info(note);
  const plan = planSchema.parse({ name: to, dtype: "bf16", ...(to === "e4m3" && { linear: { dtype: "e4m3" } }) });
  const task: WanConvertTask = {
    ...{ kind: "wan-convert", model, plan, to, file, out: resolve(out), overwrite, by: `ditrun ${packageVersion()}` },
    ...(loras.length > 0 && { loras }),
  };
  const part = transformer ? "transformer" : "text encoder";
  const about = { part, file, loras, to, out: task.out };
  if (dryRun) {
    const verdict = `The ${part} of ${file} would be written to ${out} in ${to}.`;
    session.print(`Dry run: ${verdict}`);
    await session.emit({ ...about, dryRun: true, bytes: null, seconds: null, verdict });
    return exitCodes.ok;
  }
  const { bytes, milliseconds, device } = await work(session, task);
  const seconds = milliseconds / 1e3;
  const verdict = `${out}: the ${part} of ${file} in ${to}, ${byteSize(bytes)} in ${threeDigits(seconds)} s; use it with ${transformer ? "--transformer" : "--text-encoder"}.`;
  session.printVerdict(verdict);
  await session.emit({ ...about, deviceName: device, bytes, seconds, verdict });
  return exitCodes.ok;
}

async function transformerOf(session: Session, chosen: ConvertOptions): Promise<Source> {
  const { model, ckptDir, transformer, download, verify, dryRun } = chosen;
  if (model === undefined && ckptDir === undefined && transformer === undefined)
    throw new DitrunError(
      "ERR_COMMAND_LINE",
      "convert needs something to convert: name it with --transformer, --ckpt-dir, --model or --text-encoder.",
    );
  const found = await chosenWan(
    { options: chosen, device: session.device, tellLater: (note) => session.tellLater(note) },
    chosen,
  );
  const progress = downloadProgress(session);
  const source = await transformerSource({
    ...{ found, directory: ckptDir, files: { transformer }, download: download && !dryRun, verify },
    environment: process.env,
    onProgress: progress.show,
    onNote: (sentence) => session.log.logger.info(sentence),
  });
  progress.end();
  const { name } = source.model;
  return { model: { name, transformer: source.model }, file: source.file, notes: [] };
}

/** @throws DitrunError for options that are about a transformer. */
async function textEncoderOf({ lora, model, ckptDir, transformer }: ConvertOptions, file: string): Promise<Source> {
  const others = { "--lora": lora[0], "--model": model, "--ckpt-dir": ckptDir, "--transformer": transformer };
  const [other] = Object.entries(others).find(([, value]) => value !== undefined) ?? [];
  if (other !== undefined)
    throw new DitrunError(
      "ERR_OPTION_CONFLICT",
      `convert writes one part, and --text-encoder and ${other} are of two: convert one after the other.`,
    );
  const opened = await openTensors(resolve(file));
  const inside = hasTokenizer(opened) && !opened.has("spiece_model");
  await opened.close();
  const note =
    "Its tokenizer is not in the new file: put tokenizer.json or spiece.model beside it, or give --ckpt-dir.";
  return { model: { name: "umT5" }, file: resolve(file), notes: inside ? [note] : [] };
}

async function work(session: Session, task: WanConvertTask): Promise<WanConvertRank> {
  const results = await showProgress(session, {}, (onEmit) => session.run(task, onEmit)).catch((error: unknown) => {
    session.log.logger.info(`What is done stays in ${partialName(task.out)}: the same command goes on from there.`);
    throw error;
  });
  const [rank] = checkDocument("The workers' results", results, z.array(wanConvertRankSchema), "ERR_INTERNAL");
  if (!rank) throw new Error("The worker reported nothing.");
  return rank;
}
