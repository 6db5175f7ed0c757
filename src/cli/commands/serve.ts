import { readdir } from "node:fs/promises";
import { join, resolve } from "node:path";
import { type EngineOptions, openEngine } from "../../engine/engine.js";
import { DitrunError, exitCodes } from "../../failure.js";
import { fileFailure } from "../../files/file-failure.js";
import { withFileLock } from "../../files/file-lock.js";
import { homeFolder } from "../../files/home-folder.js";
import type { Log } from "../../launcher/logs.js";
import { isWan } from "../../models/registry.js";
import { findModel } from "../../models/wan/find-model.js";
import { published } from "../../models/wan/presets.js";
import { checkFrames, parseSize } from "../../models/wan/video-size.js";
import { apiKey } from "../../serve/auth.js";
import { VideoServer } from "../../serve/server.js";
import type { Offer } from "../../serve/settings.js";
import type { Body } from "../command.js";
import { type Interrupt, interruption, listenForInterrupts } from "../interrupts.js";
import { reads } from "../named-files.js";
import type { ServeOptions } from "../options/serve.js";
import { levelOf, sessionLog } from "../session-log.js";

const ENDING = ".safetensors";

/** `ditrun serve`. */
export const serve: Body<ServeOptions> = {
  files: ({ apiKeyFile, ckptDir, lora, lora2 }) => [
    ...reads({ "--api-key-file": apiKeyFile, "--ckpt-dir": ckptDir }),
    ...lora.flatMap(({ file }) => reads({ "--lora": file })),
    ...lora2.flatMap(({ file }) => reads({ "--lora-2": file })),
  ],
  async run(chosen) {
    if (chosen.replicas > 1 && chosen.nproc === undefined) {
      const message = `--replicas ${chosen.replicas} shares the GPUs: say with --nproc how many workers each has.`;
      throw new DitrunError("ERR_OPTION_CONFLICT", message);
    }
    const log = sessionLog(chosen);
    const { DITRUN_API_KEY: variable } = process.env;
    const key = await apiKey(chosen.host, chosen.apiKeyFile, variable);
    const offer = await offerOf(chosen);
    const folder = resolve(chosen.dataDir ?? stateFolder());
    const busy = () => {
      const message = `Another server uses --data-dir ${folder}: give this one a folder of its own.`;
      throw new DitrunError("ERR_FILE_SHARED", message);
    };
    return withFileLock(join(folder, "lock"), busy, () => serveFrom(folder, offer, key, chosen, log)).catch(
      (error: unknown) => {
        if (!(error instanceof Error && "syscall" in error)) throw error;
        throw new DitrunError("ERR_FILE_WRITE", `--data-dir ${folder} cannot be used: ${fileFailure(error)}.`, {
          cause: error,
        });
      },
    );
  },
};

/** Where programs keep what they go on with after a restart (XDG Base Directory Specification). */
function stateFolder(): string {
  const { XDG_STATE_HOME: state } = process.env;
  return join(state || join(homeFolder("--data-dir"), ".local", "state"), "ditrun", "serve");
}

/** Serves until a signal comes. @returns the exit code. */
async function serveFrom(
  folder: string,
  offer: Offer,
  key: string | undefined,
  chosen: ServeOptions,
  { logger }: Log,
): Promise<number> {
  const ending = new AbortController();
  const urgent = new AbortController();
  let name: Interrupt | undefined;
  const stopListening = listenForInterrupts((signal, count) => {
    name = signal;
    if (count === 1) {
      logger.info(`${signal}: the video at hand may take ${chosen.shutdownTimeout} s to finish; a second one ends it.`);
      ending.abort();
    } else {
      logger.info(`${signal} again: ending now.`);
      urgent.abort();
    }
  });
  try {
    const server = await VideoServer.listen({
      ...{ host: chosen.host, port: chosen.port, key, folder, offer, logger },
      ...{ capacity: chosen.queue, keepMs: chosen.keep * 3_600_000, replicas: chosen.replicas },
      openEngine: (replica, signal) => {
        const firstDevice = replica * (chosen.nproc ?? 0);
        const first = { ...offer.sizes[0], frames: offer.frames };
        return openEngine({ ...engineOptions(chosen, offer.model), first, firstDevice, signal });
      },
    });
    logger.info(`Listening on ${server.address}; ${offer.model} is being loaded.`);
    const started = server.start();
    const ended = new Promise<void>((done) => ending.signal.addEventListener("abort", () => done()));
    let failure: unknown;
    await Promise.race([
      ended,
      started.then(
        () => {
          logger.info(`Ready: ${server.address}/v1/videos`);
          return ended;
        },
        (error: unknown) => {
          failure = error;
        },
      ),
    ]);
    await server.drain(chosen.shutdownTimeout * 1000, urgent.signal);
    if (!ending.signal.aborted) throw failure;
    if (urgent.signal.aborted && name !== undefined) throw interruption(name);
    return exitCodes.ok;
  } finally {
    stopListening();
  }
}

function engineOptions(chosen: ServeOptions, model: string) {
  const { plan, nproc, device, memory, timeout, ckptDir, download, logDir } = chosen;
  const weights: EngineOptions["weights"] = chosen.weights === "random" ? "random" : "checkpoint";
  return {
    ...{ model, plan, nproc, device, weights, download, directory: ckptDir, timeoutSeconds: timeout },
    ...(memory !== undefined && { memoryBytes: memory * 2 ** 30 }),
    ...{ loras: chosen.lora, loras2: chosen.lora2, preset: chosen.preset },
    log: { level: levelOf(chosen), folder: logDir },
  };
}

/** LoRAs of a folder by their names. @throws DitrunError where it cannot be read. */
async function lorasIn(folder: string | undefined): Promise<Map<string, string>> {
  if (folder === undefined) return new Map();
  try {
    const files = (await readdir(folder)).filter((file) => file.endsWith(ENDING)).sort();
    return new Map(files.map((file) => [file.slice(0, -ENDING.length), resolve(folder, file)]));
  } catch (error) {
    throw new DitrunError("ERR_FILE_READ", `--lora-dir ${folder} cannot be read: ${fileFailure(error)}.`, {
      cause: error,
    });
  }
}

/** What the options let clients ask for. @throws DitrunError where a size or length is none. */
async function offerOf(chosen: ServeOptions): Promise<Offer> {
  const name = chosen.model ?? "1.4B";
  const { preset, model } = await findModel(name);
  const two = isWan(model) && model.boundary !== undefined;
  const sizes = (chosen.size ?? [preset?.size ?? published.size]).map(parseSize);
  const frames = checkFrames(chosen.frames ?? preset?.frames ?? published.frames);
  const mostFrames = chosen.maxFrames ?? frames;
  if (mostFrames < frames) {
    throw new DitrunError(
      "ERR_OPTION_CONFLICT",
      `--max-frames is ${mostFrames}, which is less than the ${frames} frames of --frames: raise it, or lower --frames.`,
    );
  }
  return {
    ...{ model: name, sizes, frames, mostFrames, fps: published.fps, loras: await lorasIn(chosen.loraDir) },
    ...{ two, steps: chosen.steps, shift: chosen.shift, ...offeredScales(chosen.guideScale, two) },
  };
}

/** @throws DitrunError for scales of two transformers where there is one. */
function offeredScales(scale: ServeOptions["guideScale"], two: boolean): Pick<Offer, "guideScale" | "guideScale2"> {
  if (scale === undefined || typeof scale === "number") return { guideScale: scale };
  if (two) return { guideScale2: scale[0], guideScale: scale[1] };
  throw new DitrunError(
    "ERR_OPTION_CONFLICT",
    `--guide-scale ${scale.join(",")} is for two transformers, and the model has one: give one number.`,
  );
}
