import { basename, dirname } from "node:path";
import { DitrunError } from "../failure.js";
import { checkOutputs, type NamedFile } from "../files/apart.js";
import { isNumberOf, numbered } from "../files/free-name.js";
import { checkNewFile } from "../files/output-file.js";
import type { NamedText } from "../models/wan/text/texts.js";
import { checkVideo } from "../video/open-video.js";
import { isFrame } from "../video/png-writer.js";
import type { VideoFormat } from "../video/video-writer.js";
import { writes } from "./named-files.js";
import { checkReports } from "./reports.js";

interface OutputArguments {
  readonly out: string;
  readonly dump?: string | undefined;
  readonly html?: string | undefined;
  readonly trace?: string | undefined;
  readonly overwrite: boolean;
}

/** One video, and what it is written to. */
export interface Output {
  readonly prompt: NamedText;
  readonly out: string;
  readonly dump: string | undefined;
  readonly html: string | undefined;
  readonly trace: string | undefined;
}

/** What the options name as outputs. @param several whether there may be more than one video. */
export function filesWritten({ out, overwrite, dump, html, trace }: OutputArguments, several: boolean): NamedFile[] {
  const folder = dirname(out);
  const takes = out.endsWith("/")
    ? { folder: out, name: isFrame }
    : { folder, name: (base: string) => (several || !overwrite) && isNumberOf(out, base) };
  const dumps = writes({ "--dump": dump, "--html": html, "--trace": trace }).map((file) => ({
    ...file,
    takes: { folder: dirname(file.path), name: (base: string) => several && isNumberOf(file.path, base) },
  }));
  return [{ option: "--out", path: out, use: "written", takes }, ...dumps];
}

/** Number N of a file that may be wanted. @param index from 0. */
const nameOf = (path: string | undefined, index: number) =>
  path === undefined ? undefined : numbered(path, index + 1);

/**
 * The names for each prompt: number N of --dump, --html, --trace and, with --overwrite, of --out. Without it all videos ask for the same name, and
 * each gets the next free number when it is finished.
 * @param others files that the line names; of them, what is read is written over by none.
 * @throws DitrunError where one cannot be written, or is another's file, or is there already and need not be replaced.
 */
export async function outputsOf(
  { out, dump, html, trace, overwrite }: OutputArguments,
  prompts: readonly NamedText[],
  format: VideoFormat,
  others: readonly NamedFile[],
): Promise<Output[]> {
  if (prompts.length > 1 && out.endsWith("/") && ["", ".", ".."].includes(basename(out))) {
    throw new DitrunError(
      "ERR_OPTION_CONFLICT",
      `--out ${out} has no name to number for ${prompts.length} videos: name a folder, such as frames/.`,
    );
  }
  const outputs = prompts.map((prompt, index) => ({
    prompt,
    out: overwrite ? numbered(out, index + 1) : out,
    ...{ dump: nameOf(dump, index), html: nameOf(html, index), trace: nameOf(trace, index) },
  }));
  for (const each of outputs) await checkReports(each);
  const inputs = others.filter(({ use }) => use === "read");
  for (const [index, each] of outputs.entries()) {
    const outs = index === 0 || overwrite;
    if (outs) await checkVideo(each.out, format);
    if (each.dump !== undefined) await checkNewFile("--dump", each.dump, overwrite);
    const written = { "--dump": each.dump, "--html": each.html, "--trace": each.trace };
    await checkOutputs([...inputs, ...writes({ "--out": outs ? each.out : undefined, ...written })]);
  }
  return outputs;
}
