import { Worker } from "node:worker_threads";
import { messageOf } from "../failure.js";
import { encoderThread } from "../paths.js";
import type { Colour } from "./colour.js";
import type { ThreadAnswer, ThreadData, ThreadMessage } from "./encoder-messages.js";
import { groupFrames, type PictureGroup } from "./picture-group.js";
import type { VideoFormat } from "./video-writer.js";

interface Group {
  readonly number: number;
  /** Those that no thread has yet. */
  readonly waiting: Uint8Array[];
  /** How many of its frames have come. */
  frames: number;
  /** All have come. */
  complete: boolean;
  thread?: Thread;
  result?: PictureGroup;
}

interface Thread {
  readonly worker: Worker;
  group?: Group;
}

/**
 * Encodes groups of pictures side by side, each on one thread: the result is the same for any number of threads. Frames that come
 * faster than they are encoded wait in memory, a group for each thread at most.
 */
export class EncoderThreads {
  readonly #threads: Thread[] = [];
  readonly #groups: Group[] = [];
  #unfinished = 0;
  #failure: Error | undefined;
  /** Called after every change. */
  readonly #watchers = new Set<() => void>();
  #ready = false;

  private constructor(format: VideoFormat, colour: Colour, threads: number) {
    const workerData = { width: format.width, height: format.height, colour };
    for (let index = 0; index < threads; index++) this.#start(workerData);
  }

  /** Starts the threads. @returns once one of them can encode. @throws what keeps it from that. */
  static async open(format: VideoFormat, colour: Colour, threads: number): Promise<EncoderThreads> {
    const opened = new EncoderThreads(format, colour, threads);
    try {
      await opened.#until(() => opened.#ready);
      return opened;
    } catch (error) {
      await opened.close();
      throw error;
    }
  }

  /** Takes the next frame, [height, width, 3]. @returns once there is room for another. @throws what a thread failed of. */
  async add(frame: Uint8Array): Promise<void> {
    let group = this.#groups.at(-1);
    if (!group || group.complete) {
      group = { number: this.#groups.length, waiting: [], frames: 0, complete: false };
      this.#groups.push(group);
    }
    group.waiting.push(frame);
    group.frames++;
    group.complete = group.frames === groupFrames;
    this.#unfinished++;
    this.#dispatch();
    await this.#until(() => this.#unfinished < this.#threads.length * groupFrames);
  }

  /** Ends the last group. @returns all groups, in their order, once they are encoded. @throws what a thread failed of. */
  async finish(): Promise<PictureGroup[]> {
    const last = this.#groups.at(-1);
    if (last && !last.complete) {
      last.complete = true;
      if (last.thread) post(last.thread, { is: "end", group: last.number });
    }
    await this.#until(() => this.#groups.every(({ result }) => result));
    return this.#groups.flatMap(({ result }) => (result ? [result] : []));
  }

  /** Ends the threads, whatever they do. Who waits hears that they have ended. */
  async close(): Promise<void> {
    this.#fail(new Error("it was ended"));
    await Promise.all(this.#threads.map(({ worker }) => worker.terminate()));
  }

  #start(workerData: ThreadData): void {
    const thread: Thread = { worker: new Worker(encoderThread, { workerData }) };
    this.#threads.push(thread);
    thread.worker.on("message", (answer: ThreadAnswer) => this.#hear(thread, answer));
    thread.worker.on("error", (error) => this.#fail(new Error(messageOf(error))));
    thread.worker.on("exit", () => this.#fail(new Error("its thread ended")));
  }

  #hear(thread: Thread, answer: ThreadAnswer): void {
    if (answer.is === "ready") this.#ready = true;
    if (answer.is === "failed") this.#failure ??= new Error(answer.why);
    if (answer.is === "frame") this.#unfinished--;
    if (answer.is === "group" && thread.group) {
      thread.group.result = answer.group;
      delete thread.group.thread;
      delete thread.group;
      this.#dispatch();
    }
    this.#changed();
  }

  /** Gives each free thread the next group, and each group's frames to its thread. */
  #dispatch(): void {
    for (const group of this.#groups) {
      if (group.result) continue;
      if (!group.thread) {
        const free = this.#threads.find((each) => !each.group);
        if (!free) return;
        free.group = group;
        group.thread = free;
      }
      this.#send(group, group.thread);
    }
  }

  #send({ waiting, complete, number }: Group, thread: Thread): void {
    if (waiting.length === 0) return;
    for (const frame of waiting.splice(0)) {
      // A copy: the frame may be kept for another encoder.
      const rgb = new Uint8Array(frame);
      post(thread, { is: "frame", rgb }, [rgb.buffer]);
    }
    if (complete) post(thread, { is: "end", group: number });
  }

  #fail(error: Error): void {
    this.#failure ??= error;
    this.#changed();
  }

  #changed(): void {
    for (const watcher of this.#watchers) watcher();
  }

  /** Waits until something is so. @throws the first failure. */
  #until(isSo: () => boolean): Promise<void> {
    return new Promise((resolve, reject) => {
      const look = () => {
        if (!this.#failure && !isSo()) return;
        this.#watchers.delete(look);
        if (this.#failure) reject(this.#failure);
        else resolve();
      };
      this.#watchers.add(look);
      look();
    });
  }
}

function post({ worker }: Thread, message: ThreadMessage, moved: ArrayBuffer[] = []): void {
  worker.postMessage(message, moved);
}
