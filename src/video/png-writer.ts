import { readdir, rm, writeFile } from "node:fs/promises";
import { basename, join } from "node:path";
import { PNG } from "pngjs";
import { DitrunError } from "../failure.js";
import { fileFailure } from "../files/file-failure.js";
import { makeFolder } from "../files/folder.js";
import { isTaken, numbered } from "../files/free-name.js";
import { asciiJson, withTexts } from "./png-text.js";
import type { VideoFormat, VideoTarget, VideoWriter } from "./video-writer.js";

const frameName = (index: number) => `frame-${String(index).padStart(5, "0")}.png`;
/** True for the name of a frame of any such folder. */
export const isFrame = (name: string) => /^frame-\d+\.png$/.test(name);

/**
 * Writes frame-00000.png, frame-00001.png, … into a folder that has no such frames yet; to overwrite, into the folder itself,
 * whose old frames go one by one.
 */
export async function openPngWriter(
  { out, overwrite, metadata }: VideoTarget,
  { width, height }: VideoFormat,
): Promise<VideoWriter> {
  const folder = overwrite ? out : await claimFolder(out);
  if (overwrite) await framesIn(folder);
  const texts = metadata && { Software: metadata.software, Comment: asciiJson(metadata.comment) };
  const written = new Set<string>();
  return {
    encoder: "PNG",
    write: async (frame) => {
      const name = frameName(written.size);
      const path = join(folder, name);
      const png = new PNG({ width, height });
      png.data = Buffer.from(frame.buffer, frame.byteOffset, frame.byteLength);
      const plain = PNG.sync.write(png, { colorType: 2, inputColorType: 2, inputHasAlpha: false });
      const bytes = texts ? withTexts(plain, texts) : plain;
      await writeFile(path, bytes).catch(async (error: unknown) => {
        await rm(path, { force: true });
        throw new DitrunError("ERR_FILE_WRITE", `Cannot write ${path}: ${fileFailure(error)}.`);
      });
      written.add(name);
    },
    finish: async () => {
      // Frames of a longer video would be taken for the end of this one.
      const old = overwrite ? (await framesIn(folder)).filter((name) => !written.has(name)) : [];
      for (const name of old) await rm(join(folder, name), { force: true });
      return folder;
    },
    // Frames that were written whole are kept: they are files of their own.
    abort: async () => {
      if (written.size === 0 && !overwrite) await rm(join(folder, frameName(0)), { force: true });
    },
  };
}

/** Makes the folder if it is not there. @returns the names of its frames. @throws DitrunError when it cannot be had. */
async function framesIn(folder: string): Promise<string[]> {
  try {
    makeFolder(folder);
    return (await readdir(folder)).filter(isFrame);
  } catch (error) {
    throw new DitrunError("ERR_FILE_WRITE", `Cannot write frames into ${folder}: ${fileFailure(error)}.`);
  }
}

/** The first folder by that name and number without frames. Atomic: of two runs that find it so, only one has the first frame. */
async function claimFolder(out: string): Promise<string> {
  const hasName = !["", ".", ".."].includes(basename(out));
  for (let number = 1; ; number++) {
    const folder = numbered(out, number);
    const [old] = await framesIn(folder);
    if (old !== undefined && !hasName)
      throw new DitrunError(
        "ERR_FILE_EXISTS",
        `${out} already has frames (${old}): choose another folder for --out, or add --overwrite.`,
      );
    if (old !== undefined) continue;
    const first = join(folder, frameName(0));
    try {
      await writeFile(first, "", { flag: "wx" });
      return folder;
    } catch (error) {
      if (isTaken(error) && hasName) continue;
      throw new DitrunError(
        "ERR_FILE_WRITE",
        `Cannot write ${first}: ${fileFailure(error)}; choose another folder for --out.`,
      );
    }
  }
}
