import { readdir, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { PNG } from "pngjs";
import { fileFailure } from "../../formats/file-failure.js";
import { makeFolder } from "../../formats/folder.js";
import { DitrunError } from "../../protocol/failure.js";
import type { VideoFormat, VideoWriter } from "./video-writer.js";

const frameName = (index: number) => `frame-${String(index).padStart(5, "0")}.png`;

/** Writes frame-00000.png, frame-00001.png, … into a folder that has no such frames yet. */
export async function openPngWriter(folder: string, { width, height }: VideoFormat): Promise<VideoWriter> {
  const open = async () => {
    makeFolder(folder);
    return readdir(folder);
  };
  const present = await open().catch((error: unknown) => {
    throw new DitrunError(`Cannot write frames into ${folder}: ${fileFailure(error)}.`);
  });
  const old = present.find((name) => /^frame-\d+\.png$/.test(name));
  if (old !== undefined)
    throw new DitrunError(`${folder} already has frames (${old}); remove them or choose another folder for --out.`);
  // Atomic: of two runs that find the folder empty only one has the first frame.
  const first = join(folder, frameName(0));
  await writeFile(first, "", { flag: "wx" }).catch((error: unknown) => {
    throw new DitrunError(`Cannot write ${first}: ${fileFailure(error)}; choose another folder for --out.`);
  });
  let index = 0;
  return {
    encoder: "PNG",
    write: async (frame) => {
      const path = join(folder, frameName(index));
      const png = new PNG({ width, height });
      png.data = Buffer.from(frame.buffer, frame.byteOffset, frame.byteLength);
      const bytes = PNG.sync.write(png, { colorType: 2, inputColorType: 2, inputHasAlpha: false });
      await writeFile(path, bytes).catch(async (error: unknown) => {
        await rm(path, { force: true });
        throw new DitrunError(`Cannot write ${path}: ${fileFailure(error)}.`);
      });
      index += 1;
    },
    finish: async () => {},
    // Frames that were written whole are kept: they are files of their own.
    abort: async () => {
      if (index === 0) await rm(first, { force: true });
    },
  };
}
