import { type Client, createClient } from "../../client/client.js";
import type { CreateVideo, Video } from "../../client/types.js";
import { DitrunError, exitCodes, messageOf } from "../../failure.js";
import { checkOutputFile } from "../../files/output-file.js";
import type { Logger } from "../../launcher/logger.js";
import { apiKey } from "../../serve/auth.js";
import { videosTable, waitText } from "../../views/client-report.js";
import { pageOf } from "../../views/page.js";
import { WaitLine } from "../../views/wait-line.js";
import type { Body, Context } from "../command.js";
import { endOnInterrupt, interruption, unlessEnding } from "../interrupts.js";
import { reads, writes } from "../named-files.js";
import type {
  ClientDownloadOptions,
  ClientGenerateOptions,
  ClientListOptions,
  ClientOptions,
} from "../options/client.js";
import { saveContent } from "../save-content.js";
import { sessionLog } from "../session-log.js";
import { terminal } from "../terminal.js";

const files = ({ apiKeyFile }: ClientOptions) => reads({ "--api-key-file": apiKeyFile });

/** `ditrun client generate`. */
export const clientGenerate: Body<ClientGenerateOptions> = {
  files: (chosen) => [...files(chosen), ...writes({ "--out": chosen.out })],
  async run(chosen, context) {
    const request = requestOf(chosen);
    await checkOutputFile(chosen.out, true);
    const { client, logger } = await openClient(chosen);
    const abort = new AbortController();
    let working: Promise<Video> | undefined;
    const stopListening = endOnInterrupt(async (signal) => {
      abort.abort(interruption(signal));
      await working?.catch(() => undefined);
    });
    try {
      working = made(client, request, logger, abort.signal);
      const video = await working;
      await save(client, video, chosen, context).catch((error: unknown) => {
        logger.warn(`The server keeps the video: ditrun client download ${video.id}`);
        throw error;
      });
      return exitCodes.ok;
    } catch (error) {
      await unlessEnding();
      throw error;
    } finally {
      stopListening();
    }
  },
};

/** `ditrun client list`. */
export const clientList: Body<ClientListOptions> = {
  files,
  async run(chosen, { command, document }) {
    const { client } = await openClient(chosen);
    const videos: Video[] = [];
    for await (const video of client.videos.list({ limit: Math.min(100, chosen.limit) })) {
      videos.push(video);
      if (videos.length === chosen.limit) break;
    }
    print(chosen, videos);
    await document.write({ command, videos });
    return exitCodes.ok;
  },
};

/** `ditrun client get ID…`. */
export const clientGet = ofEach((client, id) => client.videos.retrieve(id));
/** `ditrun client cancel ID…`. */
export const clientCancel = ofEach((client, id) => client.videos.cancel(id));
/** `ditrun client delete ID…`: what they were before. */
export const clientDelete = ofEach(async (client, id) => {
  const video = await client.videos.retrieve(id);
  await client.videos.delete(id);
  return video;
});

/** `ditrun client download ID`. */
export const clientDownload: Body<ClientDownloadOptions> = {
  files: (chosen) => [...files(chosen), ...writes({ "--out": chosen.out })],
  async run(chosen, context) {
    const [id = "", more] = idsOf(context);
    if (more !== undefined)
      throw new DitrunError("ERR_COMMAND_LINE", "client download takes one ID: --out names one file.");
    await checkOutputFile(chosen.out, true);
    const { client } = await openClient(chosen);
    await save(client, await client.videos.retrieve(id), chosen, context);
    return exitCodes.ok;
  },
};

/** A command that does the same to each video; where one fails, those before it stay done. */
function ofEach(work: (client: Client, id: string) => Promise<Video>): Body<ClientOptions> {
  return {
    files,
    async run(chosen, context) {
      const ids = idsOf(context);
      const { client } = await openClient(chosen);
      const videos: Video[] = [];
      for (const id of ids) videos.push(await work(client, id));
      print(chosen, videos);
      await context.document.write({ command: context.command, videos });
      return exitCodes.ok;
    },
  };
}

function idsOf({ rest, command }: Context): readonly string[] {
  if (rest.length > 0) return rest;
  throw new DitrunError("ERR_COMMAND_LINE", `${command} needs an ID: ditrun client list shows them.`);
}

async function openClient(chosen: ClientOptions): Promise<{ client: Client; logger: Logger }> {
  const { logger } = sessionLog({ ...chosen, logDir: undefined });
  const { DITRUN_API_KEY: variable } = process.env;
  const key = await apiKey("localhost", chosen.apiKeyFile, variable);
  return { client: createClient({ url: chosen.url, apiKey: key }), logger };
}

/** @throws DitrunError where there is no prompt. */
function requestOf(chosen: ClientGenerateOptions): CreateVideo {
  const { prompt, negativePrompt, size, frames, fps, steps, shift, guideScale, seed, lora, lora2, deadline } = chosen;
  if (prompt === undefined)
    throw new DitrunError("ERR_PROMPT", "There is no prompt: say with --prompt what the video should show.");
  const [low, high] = typeof guideScale === "object" ? guideScale : [undefined, guideScale];
  return {
    ...{ prompt, negative_prompt: negativePrompt, size: size?.replace("*", "x"), num_frames: frames, fps },
    ...{ num_inference_steps: steps, flow_shift: shift, guidance_scale: high, guidance_scale_2: low },
    deadline_seconds: deadline,
    ...(seed !== undefined && seed >= 0n && { seed: String(seed) }),
    ...(lora.length > 0 && { lora }),
    ...(lora2.length > 0 && { lora_2: lora2 }),
  };
}

/** Asks for a video and waits for it; where the signal ends that, it is cancelled. */
async function made(client: Client, request: CreateVideo, logger: Logger, signal: AbortSignal): Promise<Video> {
  const { id, seed } = await client.videos.create(request, { signal });
  logger.info(`${id} is accepted, with seed ${seed}.`);
  const wait = new WaitLine({
    info: (line) => logger.info(line),
    status: terminal.isLive ? (text) => terminal.status(text) : undefined,
    columns: () => terminal.columns,
  });
  try {
    signal.throwIfAborted();
    return await client.videos.wait(id, {
      signal,
      onEvent: (event) => {
        const shown = waitText(event);
        if (shown) wait.advance({ total: 100, ...shown });
      },
    });
  } catch (error) {
    if (!signal.aborted) throw error;
    const told = await client.videos.cancel(id).then(
      () => `${id} is cancelled.`,
      (failure: unknown) => `${id} could not be cancelled, and may go on: ${messageOf(failure)}`,
    );
    wait.end();
    logger.warn(told);
    throw error;
  } finally {
    wait.end();
  }
}

/** Gets a video's file, and says where it is. */
async function save(
  client: Client,
  video: Video,
  chosen: ClientDownloadOptions,
  { command, document }: Context,
): Promise<void> {
  const { out, bytes } = await saveContent(await client.videos.content(video.id), chosen.out, chosen.overwrite);
  const seconds = video.inference_time_s === null ? "" : `, made in ${video.inference_time_s.toFixed(1)} s`;
  say(chosen, `${out}: ${video.size}, ${video.num_frames} frames, seed ${video.seed}${seconds}.`);
  await document.write({ command, video, out, bytes });
}

function print(chosen: ClientOptions, videos: readonly Video[]): void {
  const stream = chosen.json === undefined ? process.stdout : process.stderr;
  say(chosen, videosTable(pageOf(stream, process.env), videos, Date.now()));
}

/** Text for people: on stdout, or on stderr beside a document. */
function say({ quiet, json }: Pick<ClientOptions, "quiet" | "json">, text: string): void {
  if (quiet) return;
  if (json === undefined) process.stdout.write(`${text}\n`);
  else terminal.write(`${text}\n`);
}
