import { randomUUID } from "node:crypto";
import { rm } from "node:fs/promises";
import { createRequire } from "node:module";
import { setImmediate } from "node:timers/promises";
import type { H264MP4Encoder } from "h264-mp4-encoder";
import { DitrunError, messageOf } from "../failure.js";
import { fileFailure } from "../files/file-failure.js";
import { takeName } from "../files/free-name.js";
import { openTemporary } from "../files/temporary.js";
import { colourOf } from "./colour.js";
import { tagMp4 } from "./mp4-colour.js";
import type { VideoFormat, VideoTarget, VideoWriter } from "./video-writer.js";
import { rgbToYuv420 } from "./yuv.js";

/**
 * Encodes in WebAssembly (minih264); the compressed video stays in memory until `finish` writes it. The encoder knows BT.601
 * alone and tags nothing, so it gets YCbCr, and its file is tagged here.
 */
export async function openWasmWriter(
  { out, overwrite }: VideoTarget,
  { width, height, fps }: VideoFormat,
): Promise<VideoWriter> {
  const colour = colourOf({ width, height });
  if (!Number.isInteger(fps))
    throw new DitrunError(
      "ERR_VIDEO_FORMAT",
      `Cannot write ${out} at ${fps} frames per second: the WebAssembly H.264 encoder has whole rates only; choose ${Math.round(fps)}, install ffmpeg, or write PNG frames with --out frames/.`,
    );
  const encoder = await createEncoder();
  encoder.width = width;
  encoder.height = height;
  encoder.frameRate = fps;
  encoder.quantizationParameter = 20;
  // The quantisation is fixed, so speed costs bytes only: 25 ms a frame of 832 × 480 against 45 at speed 5, a third more bytes.
  encoder.speed = 10;
  encoder.groupOfPictures = fps;
  // Its in-memory file system is shared by all encoders of the process.
  encoder.outputFilename = randomUUID();

  /** False after a failure, when the WebAssembly instance is dead, and after the end. */
  let usable = true;
  /** Ends the encoding; the encoder must not be deleted before. */
  const complete = (): Uint8Array => {
    usable = false;
    encoder.finalize();
    const video = encoder.FS.readFile(encoder.outputFilename);
    encoder.FS.unlink(encoder.outputFilename);
    encoder.delete();
    return video;
  };
  const attempt = <T>(action: () => T): T => {
    try {
      return action();
    } catch (error) {
      usable = false;
      throw new DitrunError(
        "ERR_VIDEO_ENCODER",
        `Cannot write ${out}: the WebAssembly H.264 encoder failed (${messageOf(error)}); install ffmpeg, or write PNG frames with --out frames/.`,
      );
    }
  };
  attempt(() => encoder.initialize());
  // Last, so that nothing above can leave it behind.
  const { name: temporary, file } = await openTemporary(out).catch((error: unknown) => {
    throw new DitrunError("ERR_FILE_WRITE", `Cannot write ${out}: ${fileFailure(error)}.`);
  });

  return {
    encoder: "WebAssembly H.264",
    write: async (frame) => {
      attempt(() => encoder.addFrameYuv(rgbToYuv420(frame, width, height, colour)));
      // A frame takes tens of milliseconds: let the event loop answer in between.
      await setImmediate();
    },
    finish: async () => {
      const video = attempt(() => tagMp4(complete(), colour));
      try {
        await file.writeFile(video);
        await file.close();
        return await takeName(temporary, out, overwrite);
      } catch (error) {
        await rm(temporary, { force: true });
        throw new DitrunError(
          "ERR_FILE_WRITE",
          `Cannot write ${out} (${video.byteLength} bytes): ${fileFailure(error)}.`,
        );
      }
    },
    abort: async () => {
      try {
        if (usable) attempt(complete);
      } finally {
        await file.close();
        await rm(temporary, { force: true });
      }
    },
  };
}

/**
 * Loads the module and makes an encoder. The module adds process-wide handlers that turn any unhandled rejection of the
 * program into an abort of its own: they are taken off again.
 */
async function createEncoder(): Promise<H264MP4Encoder> {
  const exceptions = new Set(process.listeners("uncaughtException"));
  const rejections = new Set(process.listeners("unhandledRejection"));
  // By require: importers differ in what they take for this CommonJS module's default export.
  const h264: typeof import("h264-mp4-encoder") = createRequire(import.meta.url)("h264-mp4-encoder");
  const encoder = await h264.createH264MP4Encoder();
  for (const added of process.listeners("uncaughtException"))
    if (!exceptions.has(added)) process.off("uncaughtException", added);
  for (const added of process.listeners("unhandledRejection"))
    if (!rejections.has(added)) process.off("unhandledRejection", added);
  return encoder;
}
