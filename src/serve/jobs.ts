import { setTimeout as sleep } from "node:timers/promises";
import type { Engine, EngineEvent } from "../engine/engine.js";
import { asDitrunError, DitrunError, messageOf } from "../failure.js";
import type { Logger } from "../launcher/logger.js";
import { ApiError, conflict } from "./api-error.js";
import { type Listener, Listeners } from "./listeners.js";
import { type Loras, makeVideo, samplingOf } from "./make-video.js";
import type { Metrics } from "./metrics.js";
import { afterRun, cancelled, failed, late, outcomeOf, restarted, timeLeft } from "./outcomes.js";
import { Previews } from "./previews.js";
import { VideoProgress } from "./progress.js";
import type { Queue, Reservation } from "./queue.js";
import { isFinal, mostAttempts, type VideoRecord, type VideoSettings } from "./records.js";
import type { PreviewEvent } from "./schemas.js";
import type { Store } from "./store.js";

/** How long a client that cancels waits for the workers' next step. */
const CANCEL_WAIT_MS = 5000;
const RETRY_MS = 1000;

export interface JobsParts {
  readonly store: Store;
  readonly queue: Queue;
  readonly metrics: Metrics;
  readonly logger: Logger;
  /** As clients name it. */
  readonly model: string;
  readonly loras: Loras;
  /** Milliseconds since 1970. */
  now(): number;
}

/** A video that is being made. */
interface Running {
  readonly progress: VideoProgress;
  readonly previews: Previews;
  readonly abort: AbortController;
  /** Its record has its next state. */
  readonly over: Promise<void>;
}

type Idempotency = NonNullable<VideoRecord["idempotency"]>;

/** The one place that decides what becomes of a video: from queued over in progress to completed or failed, and never back from those. */
export class Jobs {
  readonly #running = new Map<string, Running>();
  readonly #listeners = new Listeners();
  readonly #deadlines = new Map<string, NodeJS.Timeout>();
  /** Requests under a key whose record is not on the disk yet. */
  readonly #making = new Map<string, { digest: string; record: Promise<VideoRecord> }>();

  constructor(private readonly parts: JobsParts) {}

  /** Whether a client has used this key, so that its request takes no new place. */
  knowsKey(key: string): boolean {
    return this.#making.has(key) || this.parts.store.byKey(key) !== undefined;
  }

  /**
   * The video that a request under this key has made before.
   * @throws ApiError where that request asked for another one, or what that one failed with.
   */
  sameAs({ key, digest }: Idempotency): Promise<VideoRecord> | undefined {
    const stored = this.parts.store.byKey(key);
    const before = stored ? { digest: stored.idempotency?.digest, record: stored } : this.#making.get(key);
    if (!before) return undefined;
    if (before.digest === digest) return Promise.resolve(before.record);
    throw new ApiError(
      422,
      "idempotency_key_reused",
      "This Idempotency-Key was used for another video. Take a new key.",
    );
  }

  /** Accepts a video, whose key `sameAs` does not know; it is on the disk then. @throws DitrunError ERR_FILE_WRITE */
  async create(settings: VideoSettings, place: Reservation, idempotency?: Idempotency): Promise<VideoRecord> {
    const record = this.#create(settings, place, idempotency);
    if (!idempotency) return record;
    const { key, digest } = idempotency;
    this.#making.set(key, { digest, record });
    return record.finally(() => this.#making.delete(key));
  }

  async #create(settings: VideoSettings, place: Reservation, idempotency?: Idempotency): Promise<VideoRecord> {
    const { store, now } = this.parts;
    const createdAt = now();
    const record: VideoRecord = {
      ...{ id: store.newId(createdAt), createdAt, status: "queued", settings, attempts: 0, cancelled: false },
      ...(idempotency && { idempotency }),
    };
    try {
      await store.add(record);
    } catch (error) {
      place.release();
      throw error;
    }
    this.#watchDeadline(record);
    place.enter(record.id);
    return record;
  }

  /** Takes up what a server before has left: what was begun once is next, what was begun twice has failed. */
  async resume(): Promise<void> {
    const { store, queue, now } = this.parts;
    for (const { id, status } of store.all()) {
      if (status !== "in_progress") continue;
      await store.change(id, (record) => {
        if (record.cancelled) return failed(record, cancelled, now());
        if (record.attempts >= mostAttempts) return failed(record, restarted, now());
        return { ...record, status: "queued" };
      });
    }
    for (const record of store.all()) {
      if (record.status !== "queued") continue;
      this.#watchDeadline(record);
      queue.add(record.id);
    }
  }

  /**
   * Ends a video that is not wanted any more, at its next step.
   * @returns its record, once it has ended or a few seconds have passed; undefined where there is none.
   * @throws ApiError where it has ended in another way. @throws DitrunError ERR_FILE_WRITE
   */
  async cancel(id: string): Promise<VideoRecord | undefined> {
    const { store, queue, metrics, now } = this.parts;
    let waited = false;
    const record = await store.change(id, (before) => {
      if (isFinal(before)) return undefined;
      waited = before.status === "queued";
      return waited ? failed(before, cancelled, now()) : { ...before, cancelled: true };
    });
    if (!record) return undefined;
    if (waited) {
      queue.remove(id);
      metrics.ended("cancelled");
      this.#changed(id);
    }
    await this.#stop(id);
    const last = store.get(id) ?? record;
    if (isFinal(last) && last.error?.code !== cancelled.code) {
      throw conflict("video_finished", `The video is ${last.status}; there is nothing to cancel.`);
    }
    return last;
  }

  /** Removes a video and its file, and ends it where it runs. @throws DitrunError ERR_FILE_WRITE */
  async remove(id: string): Promise<void> {
    const { store, queue, now } = this.parts;
    queue.remove(id);
    await store.remove(id, "deleted", now());
    this.#forgetDeadline(id);
    this.#changed(id);
    await this.#stop(id);
  }

  async #stop(id: string): Promise<void> {
    const running = this.#running.get(id);
    if (!running) return;
    running.abort.abort(new DitrunError("ERR_ABORTED", cancelled.message));
    await Promise.race([running.over, sleep(CANCEL_WAIT_MS, undefined, { ref: false })]);
  }

  /** How far a video is that is being made. */
  progressOf(id: string): VideoProgress | undefined {
    return this.#running.get(id)?.progress;
  }

  /** What a video that is being made looks like. */
  previewOf(id: string): PreviewEvent | undefined {
    return this.#running.get(id)?.previews.latest;
  }

  /** Calls for each change of a video. @param previews whether for previews too. @returns how to stop that. */
  watch(id: string, listener: Listener, previews: boolean): () => void {
    return this.#listeners.add(id, listener, previews);
  }

  /** Tells who follows the video, and who follows one that waits: its place may be another. */
  #changed(id: string): void {
    this.#listeners.tell(id, "status");
    for (const other of this.#listeners.ids) {
      if (other !== id && this.parts.store.get(other)?.status === "queued") this.#listeners.tell(other, "status");
    }
  }

  /**
   * Makes a video that waited. It never throws: what goes wrong is the video's failure, and a crash of the workers makes it wait
   * again, once. @param stop ends it at once; it then waits for the next server.
   */
  async run(id: string, engine: Engine, stop: AbortSignal): Promise<void> {
    const { store, metrics, now } = this.parts;
    const waiting = store.get(id);
    if (!waiting) return;
    let end = () => {};
    const over = new Promise<void>((resolve) => {
      end = resolve;
    });
    const sampling = samplingOf(engine, waiting, this.parts.loras);
    const running = {
      progress: new VideoProgress(sampling?.steps ?? 1, waiting.settings.frames, this.#decodeSeconds(waiting.settings)),
      previews: new Previews(() => this.#listeners.wantsPreview(id), now),
      abort: new AbortController(),
      over,
    };
    this.#running.set(id, running);
    try {
      const begun = await this.#surely(stop, () =>
        store.change(id, (record) =>
          record.status === "queued"
            ? {
                ...record,
                ...(sampling && { sampling }),
                status: "in_progress",
                attempts: record.attempts + 1,
                startedAt: now(),
              }
            : undefined,
        ),
      );
      if (begun?.status !== "in_progress") return;
      this.#forgetDeadline(id);
      this.#changed(id);
      metrics.began((now() - begun.createdAt) / 1000);
      try {
        await this.#make(begun, engine, running, stop);
      } finally {
        metrics.stopped();
      }
    } finally {
      this.#running.delete(id);
      end();
      this.#changed(id);
    }
  }

  async #make(record: VideoRecord, engine: Engine, running: Running, stop: AbortSignal): Promise<void> {
    const { store, model, loras, logger, metrics, queue, now } = this.parts;
    const { id, settings } = record;
    const made = await makeVideo(engine, record, {
      ...{ files: store.filesOf(id), model, loras, deadlineMs: timeLeft(record, now()) },
      signal: AbortSignal.any([running.abort.signal, stop]),
      warn: (sentence) => logger.warn(sentence),
      wantsPreview: () => running.previews.wanted(),
      onEvent: (event) => this.#progress(id, running, event),
    })
      .then(async (made) => {
        await store.keepFiles(id);
        return made;
      })
      .catch((error: unknown) => asDitrunError(error));
    const crashed = made instanceof DitrunError && !stop.aborted && (await hasEnded(engine));
    const after = await this.#surely(stop, () =>
      store.change(id, (latest) => afterRun(latest, made, { crashed, stopped: stop.aborted, at: now() })),
    );
    if (after?.status !== "completed") await store.removeFiles(id);
    if (after?.status === "queued" && !stop.aborted) {
      this.#watchDeadline(after);
      queue.add(id, true);
    }
    if (after && isFinal(after)) metrics.ended(outcomeOf(after));
    if (after?.status === "completed" && !(made instanceof DitrunError)) metrics.made(settings, made);
    logger.info(`${id}: ${after?.status ?? "deleted"}${after?.error ? `, ${after.error.message}` : ""}`);
  }

  /** As long as the latest video of this size took. */
  #decodeSeconds({ width, height, frames }: VideoSettings): number | undefined {
    const isAlike = ({ settings: its, measured }: VideoRecord) =>
      measured !== undefined && its.width === width && its.height === height && its.frames === frames;
    return this.parts.store.all().findLast(isAlike)?.measured?.stageSeconds.decode;
  }

  #progress(id: string, { progress, previews }: Running, event: EngineEvent): void {
    if (event.kind === "preview") {
      previews.take(event);
      this.#listeners.tell(id, "preview");
      return;
    }
    const before = progress.percent;
    if (!progress.take(event)) return;
    if (event.kind === "step" && event.done > 0 && event.total > event.done) {
      this.parts.metrics.stepped(event.millisecondsLeft / (event.total - event.done) / 1000);
    }
    if (event.kind !== "frame" || progress.percent !== before) this.#listeners.tell(id, "progress");
  }

  /** Tries until it is written: a full disk may have room again. @throws what it throws once the server stops. */
  async #surely<T>(stop: AbortSignal, write: () => Promise<T>): Promise<T> {
    for (let told = false; ; told = true) {
      try {
        return await write();
      } catch (error) {
        if (!told) this.parts.logger.error(`${messageOf(error)} It is tried again every second.`);
        if (stop.aborted) throw error;
        await sleep(RETRY_MS, undefined, { signal: stop }).catch(() => undefined);
      }
    }
  }

  /** A video that waits longer than it may fails in the queue. */
  #watchDeadline({ id, createdAt, settings: { deadlineSeconds } }: VideoRecord): void {
    if (deadlineSeconds === undefined) return;
    const { store, queue, metrics, logger, now } = this.parts;
    const isLate = async () => {
      this.#deadlines.delete(id);
      let over = false;
      await store.change(id, (record) => {
        if (record.status !== "queued") return undefined;
        over = true;
        return failed(record, late(deadlineSeconds), now());
      });
      if (!over) return;
      queue.remove(id);
      metrics.ended("failed");
      this.#changed(id);
    };
    const timer = setTimeout(
      () => void isLate().catch((error: unknown) => logger.error(messageOf(error))),
      Math.max(0, createdAt + deadlineSeconds * 1000 - now()),
    );
    this.#deadlines.set(id, timer.unref());
  }

  #forgetDeadline(id: string): void {
    clearTimeout(this.#deadlines.get(id));
    this.#deadlines.delete(id);
  }

  /** Forgets all timers. */
  close(): void {
    for (const id of [...this.#deadlines.keys()]) this.#forgetDeadline(id);
  }
}

/** Whether the workers are gone, and not only this one request. */
async function hasEnded(engine: Engine): Promise<boolean> {
  return Promise.race([engine.ended.then(() => true), sleep(0, false)]);
}
