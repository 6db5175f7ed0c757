import { createServer, type Server as HttpServer } from "node:http";
import { setTimeout as sleep } from "node:timers/promises";
import type { Engine } from "../engine/engine.js";
import { DitrunError, messageOf } from "../failure.js";
import { fileFailure } from "../files/file-failure.js";
import type { Logger } from "../launcher/logger.js";
import { pageFile } from "../paths.js";
import { Jobs } from "./jobs.js";
import { Metrics } from "./metrics.js";
import { readPage } from "./page-file.js";
import { Queue } from "./queue.js";
import { Router } from "./router.js";
import { allRoutes } from "./routes.js";
import { Runner } from "./runner.js";
import type { Offer } from "./settings.js";
import { Store } from "./store.js";
import { videoRoutes } from "./videos.js";

export interface ServeOptions {
  readonly host: string;
  /** 0 for any free one. */
  readonly port: number;
  /** That clients must send; undefined lets everybody in. */
  readonly key: string | undefined;
  /** Holds the journal and the videos; only one server at a time may use it. */
  readonly folder: string;
  readonly offer: Offer;
  /** Videos that may wait. */
  readonly capacity: number;
  /** How long a video is kept once it is final. */
  readonly keepMs: number;
  readonly replicas: number;
  /** Starts the workers of a replica, 0 to replicas - 1. */
  readonly openEngine: (replica: number, signal: AbortSignal) => Promise<Engine>;
  readonly logger: Logger;
}

/** Longer than a proxy keeps a connection, so that it never sends into one that is just being closed. */
const KEEP_ALIVE_MS = 65_000;
const REQUEST_MS = 30_000;
const MOST_CONNECTIONS = 4096;
const SWEEP_MS = 60_000;

/** A server that listens. */
export class VideoServer {
  #draining = false;
  readonly #sweep: NodeJS.Timeout;

  private constructor(
    private readonly http: HttpServer,
    private readonly runners: readonly Runner[],
    private readonly jobs: Jobs,
    private readonly store: Store,
    { keepMs, logger }: ServeOptions,
  ) {
    const sweep = () => store.expire(Date.now(), keepMs).catch((error: unknown) => logger.error(messageOf(error)));
    this.#sweep = setInterval(() => void sweep(), Math.min(SWEEP_MS, keepMs));
  }

  /**
   * Listens, and takes up what a server before has left. No workers are there yet.
   * @throws DitrunError where the folder or the port cannot be had.
   */
  static async listen(options: ServeOptions): Promise<VideoServer> {
    const { host, port, key, folder, offer, capacity, keepMs, replicas, openEngine, logger } = options;
    const page = await readPage(pageFile);
    const store = await Store.open(folder);
    const queue = new Queue(capacity);
    const metrics = new Metrics(queue);
    const jobs = new Jobs({ store, queue, metrics, logger, model: offer.model, loras: offer.loras, now: Date.now });
    await store.expire(Date.now(), keepMs);
    await jobs.resume();
    const runners = Array.from(
      { length: replicas },
      (_, replica) =>
        new Runner({ open: (signal) => openEngine(replica, signal), jobs, queue, metrics, logger, offer }),
    );
    let server: VideoServer | undefined;
    const draining = () => server?.isDraining ?? false;
    const videos = videoRoutes({ store, jobs, queue, metrics, offer, keepMs, draining });
    const routes = allRoutes({ videos, metrics, offer, page, runners, startedAt: Date.now(), draining });
    const router = new Router(routes, key, logger);
    const http = createServer({ requestTimeout: REQUEST_MS, headersTimeout: REQUEST_MS / 2 }, (request, response) => {
      router.answer(request, response);
    });
    http.keepAliveTimeout = KEEP_ALIVE_MS;
    http.maxConnections = MOST_CONNECTIONS;
    try {
      await listening(http, host, port);
    } catch (error) {
      await store.close();
      throw error;
    }
    server = new VideoServer(http, runners, jobs, store, options);
    return server;
  }

  /** Where it listens, as `http://127.0.0.1:8000`. */
  get address(): string {
    const address = this.http.address();
    if (address === null || typeof address === "string") return String(address);
    return `http://${address.family === "IPv6" ? `[${address.address}]` : address.address}:${address.port}`;
  }

  get isDraining(): boolean {
    return this.#draining;
  }

  /** Starts all workers; resolves once they are warm. @throws DitrunError where they cannot be had. */
  async start(): Promise<void> {
    await Promise.all(this.runners.map((runner) => runner.start()));
  }

  /**
   * Ends: takes nothing more, and lets the videos at hand finish for so long. What waits is kept for the next server.
   * @param urgent ends the videos at hand at once; they wait for the next server, too.
   */
  async drain(milliseconds: number, urgent: AbortSignal): Promise<void> {
    this.#draining = true;
    clearInterval(this.#sweep);
    const drained = Promise.all(this.runners.map((runner) => runner.drain()));
    const enough = new AbortController();
    const late = sleep(milliseconds, undefined, { signal: AbortSignal.any([enough.signal, urgent]) });
    await Promise.race([drained, late.catch(() => undefined)]);
    enough.abort();
    for (const runner of this.runners) runner.stop();
    await drained;
    this.http.close();
    this.http.closeAllConnections();
    this.jobs.close();
    await this.store.close();
  }
}

function listening(http: HttpServer, host: string, port: number): Promise<void> {
  return new Promise((resolve, reject) => {
    http.once("error", (error) => {
      const why = "code" in error && error.code === "EADDRINUSE" ? "the port is taken" : fileFailure(error);
      const message = `ditrun cannot listen on --host ${host} --port ${port}: ${why}. Give another --port, or 0.`;
      reject(new DitrunError("ERR_PORT_TAKEN", message, { cause: error }));
    });
    http.listen({ host, port }, resolve);
  });
}
