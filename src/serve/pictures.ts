import { writeFile } from "node:fs/promises";
import { DitrunError } from "../failure.js";
import { fileFailure } from "../files/file-failure.js";
import { encodeJpeg, type Picture, shrink, tiled } from "../video/jpeg.js";

/** The longer side of a thumbnail and of a picture of the sheet, at most. */
const THUMBNAIL_SIDE = 640;
const SHEET_SIDE = 160;
/** Pictures of a sheet at most, and of its rows. */
export const sheetPictures = 25;
export const sheetColumns = 5;
const QUALITY = 85;

/** Collects, from the frames of a video as they pass, what is shown of it beside it: the frame in its middle, and a sheet of some. */
export class Pictures {
  #thumbnail: Picture | undefined;
  readonly #sheet: Picture[] = [];

  /** @param frames of the whole video. */
  constructor(private readonly frames: number) {}

  /** The next frame, from the first on. */
  add(index: number, frame: Picture): void {
    const longer = Math.max(frame.width, frame.height);
    if (index === Math.floor(this.frames / 2)) this.#thumbnail = shrink(frame, Math.ceil(longer / THUMBNAIL_SIDE));
    const count = Math.min(sheetPictures, this.frames);
    // Evenly spread, the first frame included.
    if (index === Math.floor((this.#sheet.length * this.frames) / count)) {
      this.#sheet.push(shrink(frame, Math.ceil(longer / SHEET_SIDE)));
    }
  }

  /** Writes both, once all frames have passed. @throws DitrunError ERR_FILE_WRITE */
  async write(files: { readonly thumbnail: string; readonly spritesheet: string }): Promise<void> {
    if (!this.#thumbnail) throw new DitrunError("ERR_INTERNAL", "The video has fewer frames than it was to have.");
    await write(files.thumbnail, this.#thumbnail);
    await write(files.spritesheet, tiled(this.#sheet, sheetColumns));
  }
}

async function write(path: string, picture: Picture): Promise<void> {
  await writeFile(path, encodeJpeg(picture, QUALITY)).catch((error: unknown) => {
    throw new DitrunError("ERR_FILE_WRITE", `Cannot write ${path}: ${fileFailure(error)}.`, { cause: error });
  });
}
