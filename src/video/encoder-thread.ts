import { createRequire } from "node:module";
import { parentPort, workerData } from "node:worker_threads";
import type { H264MP4Encoder } from "h264-mp4-encoder";
import { messageOf } from "../failure.js";
import type { ThreadAnswer, ThreadData, ThreadMessage } from "./encoder-messages.js";
import { groupFrames, numberGroup, readGroup } from "./picture-group.js";
import { rgbToYuv420 } from "./yuv.js";

// What a thread of EncoderThreads (encoder-threads.ts) runs: it encodes one group of pictures after the other, each by an encoder of its own.

const FILE = "group.mp4";
const { width, height, colour }: ThreadData = workerData;
// Why it fails, the module tells the console alone: standard output, where a document may go.
const said: string[] = [];
const hear = (line: unknown) => said.push(String(line));
Object.assign(console, { log: hear, warn: hear, error: hear });
// By require: importers differ in what they take for this CommonJS module's default export.
const h264: typeof import("h264-mp4-encoder") = createRequire(import.meta.url)("h264-mp4-encoder");

async function open(): Promise<H264MP4Encoder> {
  const encoder = await h264.createH264MP4Encoder();
  encoder.width = width;
  encoder.height = height;
  // Of a file that is taken apart again.
  encoder.frameRate = 25;
  encoder.quantizationParameter = 20;
  // The quantisation is fixed, so speed costs bytes only: half the time of speed 5, for up to 5 % more bytes.
  encoder.speed = 10;
  encoder.groupOfPictures = groupFrames;
  encoder.outputFilename = FILE;
  encoder.initialize();
  return encoder;
}

function close(encoder: H264MP4Encoder): Uint8Array {
  encoder.finalize();
  const file = encoder.FS.readFile(FILE);
  encoder.FS.unlink(FILE);
  encoder.delete();
  return file;
}

const answer = (message: ThreadAnswer) => parentPort?.postMessage(message);

let encoder: H264MP4Encoder | undefined;
let turn = open().then((opened) => {
  encoder = opened;
  answer({ is: "ready" });
}, fail);
parentPort?.on("message", (message: ThreadMessage) => {
  turn = turn.then(() => take(message)).catch(fail);
});

async function take(message: ThreadMessage): Promise<void> {
  encoder ??= await open();
  if (message.is === "frame") {
    // The encoder knows BT.601 alone, so it gets YCbCr.
    encoder.addFrameYuv(rgbToYuv420(message.rgb, width, height, colour));
    answer({ is: "frame" });
    return;
  }
  const group = readGroup(close(encoder));
  encoder = undefined;
  numberGroup(group, message.group);
  answer({ is: "group", group });
}

function fail(error: unknown): void {
  answer({ is: "failed", why: said[0] ?? messageOf(error) });
}
