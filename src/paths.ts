import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

/** The package's folder: where configs/, build/ and dist/ are, whether this runs from src/ or dist/. */
export const packageRoot = dirname(dirname(fileURLToPath(import.meta.url)));

export const modelsDirectory = join(packageRoot, "configs", "models");
export const plansDirectory = join(packageRoot, "configs", "plans");

/** A small Wan checkpoint that scripts/train-tiny trained. */
export const tinyCheckpoint = join(packageRoot, "models", "wan-tiny");

/** The kernel module of this package for a device, built or not. */
export function builtKernels(device: "cpu" | "cuda"): string {
  return join(packageRoot, "build", `libditrun_${device}.so`);
}

/** The worker's program, and the one that looks at a kernel module for the launcher. */
export const workerEntry = join(packageRoot, "dist", "worker", "main.js");
export const probeEntry = join(packageRoot, "dist", "worker", "probe.js");

/** The program that tries a kernel module and its device for `ditrun doctor`. */
export const examineEntry = join(packageRoot, "dist", "worker", "examine", "main.js");

/** The program that ends the ranks of a launcher that was killed. */
export const reaperEntry = join(packageRoot, "dist", "launcher", "reaper.js");

/** The server's page, in one file. */
export const pageFile = join(packageRoot, "dist", "serve", "page.html");

/** What a thread of the launcher runs to tokenise. */
export const tokenizerThread = join(packageRoot, "dist", "models", "wan", "text", "tokenizer-thread.js");

/** What threads of the launcher run to encode a video without ffmpeg. */
export const encoderThread = join(packageRoot, "dist", "video", "encoder-thread.js");

/** What draws the timeline in a report, for a browser. */
export const reportScript = join(packageRoot, "dist", "views", "html", "report.js");
