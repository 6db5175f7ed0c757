import { stat } from "node:fs/promises";
import { DitrunError, exitCodes } from "../../failure.js";
import { checkDocument } from "../../files/documents.js";
import { checkOutputFile, writeOutput } from "../../files/output-file.js";
import { readJsonFile } from "../../formats/json-file.js";
import { toFloat32 } from "../../formats/numbers.js";
import { openSafetensors } from "../../formats/safetensors.js";
import { lumaOf, meanSquaredError, SSIM_WINDOW, ssim } from "../../video/quality.js";
import { openFrames } from "../../video/read-frames.js";
import { type VideoComparison, videoComparison } from "../../views/compare/pictures.js";
import { type Comparison, compareTable } from "../../views/compare/report.js";
import { comparedSchema, compareResults } from "../../views/compare/results.js";
import { type DumpComparison, dumpComparison, inOrder, tensorDifference } from "../../views/compare/tensors.js";
import { comparePage } from "../../views/html/compare-page.js";
import { pageOf, paint, prose } from "../../views/page.js";
import type { Body, Context } from "../command.js";
import { writes } from "../named-files.js";
import type { CompareOptions } from "../options/compare.js";

/** `ditrun compare A B`: two results, two videos or two dumps, side by side. */
export const compare: Body<CompareOptions> = {
  files: ({ html }) => writes({ "--html": html }),
  run,
};

async function run(
  { html, failAbove, json, quiet }: CompareOptions,
  { rest, document, command }: Context,
): Promise<number> {
  const [a, b] = rest;
  if (a === undefined || b === undefined || rest.length > 2) {
    throw new DitrunError(
      "ERR_COMMAND_LINE",
      `compare takes two files, and got ${rest.length}: ditrun compare A.json B.json. See ditrun compare --help.`,
    );
  }
  if (html !== undefined) await checkOutputFile(html, false);
  const comparison = await comparisonOf(a, b);
  const stream = json === undefined ? process.stdout : process.stderr;
  const page = pageOf(stream, process.env);
  const { verdict } = comparison;
  if (!quiet) {
    const title = `A: ${a}\nB: ${b}`;
    stream.write(
      `${title}\n\n${compareTable(page, comparison)}\n\n${prose(page, `${paint(page, "bold", "Verdict:")} ${verdict}`)}\n`,
    );
  }
  if (html !== undefined) await writeOutput(html, comparePage({ a, b, comparison, made: document.envelope }));
  const worse = worseBy(comparison);
  const pass = failAbove === undefined || worse <= failAbove;
  await document.write({ command, a, b, failAbove: failAbove ?? null, pass, ...comparison });
  return pass ? exitCodes.ok : exitCodes.mismatch;
}

/** What --fail-above looks at, in per cent; infinite where a dump is not finite. */
function worseBy(comparison: Comparison): number {
  if (comparison.kind === "results") return comparison.slowerPercent;
  return comparison.differencePercent ?? Number.POSITIVE_INFINITY;
}

type Kind = "a result" | "a dump" | "a video";

async function kindOf(path: string): Promise<Kind> {
  if (/\.json$/.test(path)) return "a result";
  if (/\.safetensors$/.test(path)) return "a dump";
  const isFolder = await stat(path).then(
    (found) => found.isDirectory(),
    () => false,
  );
  if (isFolder || /\.(?:mp4|mkv|mov|webm|avi)$/i.test(path)) return "a video";
  throw new DitrunError(
    "ERR_FILE_READ",
    `${path} is none that compare knows: give results (.json), dumps (.safetensors), videos (.mp4) or folders of PNG frames.`,
  );
}

/** @throws DitrunError where one cannot be read, or both are not of one kind. */
async function comparisonOf(a: string, b: string): Promise<Comparison> {
  const [kind, other] = [await kindOf(a), await kindOf(b)];
  if (kind !== other) {
    throw new DitrunError("ERR_OPTION_CONFLICT", `${a} is ${kind}, but ${b} is ${other}: compare two of one kind.`);
  }
  if (kind === "a result") return results(a, b);
  return kind === "a dump" ? dumps(a, b) : videos(a, b);
}

async function results(a: string, b: string): Promise<Comparison> {
  const read = async (path: string) => checkDocument(path, await readJsonFile(path), comparedSchema);
  try {
    return compareResults(await read(a), await read(b));
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;
    throw new DitrunError("ERR_OPTION_CONFLICT", `${a} and ${b} cannot be compared: ${error.message}.`);
  }
}

async function videos(a: string, b: string): Promise<VideoComparison> {
  const [first, second] = [await openFrames(a), await openFrames(b)];
  const { width, height } = first;
  if (width !== second.width || height !== second.height) {
    throw new DitrunError(
      "ERR_TENSOR_SHAPE",
      `${a} has frames of ${width} × ${height}, ${b} of ${second.width} × ${second.height}: compare videos of one size.`,
    );
  }
  const isLarge = Math.min(width, height) >= SSIM_WINDOW;
  const differences = [];
  let squares = 0;
  const others = second.frames[Symbol.asyncIterator]();
  const count = (path: string, frames: number) =>
    new DitrunError(
      "ERR_TENSOR_SHAPE",
      `${path} ends after ${frames} frames, and the other video goes on: compare videos of one length.`,
    );
  for await (const frame of first.frames) {
    const next = await others.next();
    if (next.done) throw count(b, differences.length);
    const mse = meanSquaredError(frame, next.value);
    const similar = isLarge ? (mse === 0 ? 1 : ssim(lumaOf(frame), lumaOf(next.value), width, height)) : null;
    differences.push({ mse, ssim: similar });
    squares += meanSquaredError(frame, new Uint8Array(frame.length));
  }
  if (!(await others.next()).done) throw count(a, differences.length);
  if (differences.length === 0) throw new DitrunError("ERR_FILE_READ", `${a} has no frames.`);
  return videoComparison({ width, height }, differences, squares / differences.length);
}

async function dumps(a: string, b: string): Promise<DumpComparison> {
  const first = await openSafetensors(a);
  try {
    const second = await openSafetensors(b);
    try {
      const shared = inOrder(first.names().filter((name) => second.has(name)));
      const tensors = [];
      for (const name of shared) {
        const [mine, theirs] = [first.info(name), second.info(name)];
        if (mine.shape.join() !== theirs.shape.join()) {
          throw new DitrunError(
            "ERR_TENSOR_SHAPE",
            `${name} has shape [${mine.shape.join(", ")}] in ${a} and [${theirs.shape.join(", ")}] in ${b}: compare dumps of one size.`,
          );
        }
        const values = [
          toFloat32(mine.dtype, await first.read(name)),
          toFloat32(theirs.dtype, await second.read(name)),
        ] as const;
        tensors.push(tensorDifference(name, mine.shape, ...values));
      }
      const only = (names: readonly string[], has: (name: string) => boolean) =>
        inOrder(names.filter((name) => !has(name)));
      const comparison = dumpComparison(
        tensors,
        only(first.names(), (name) => second.has(name)),
        only(second.names(), (name) => first.has(name)),
      );
      if (tensors.length > 0) return comparison;
      throw new DitrunError(
        "ERR_TENSOR_MISSING",
        `${a} and ${b} have no tensor of one name: compare dumps of one command.`,
      );
    } finally {
      await second.close();
    }
  } finally {
    await first.close();
  }
}
