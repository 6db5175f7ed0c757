import { hostname } from "node:os";
import { Context, Dealer } from "zeromq";
import { DitrunError, messageOf, PeerFailure } from "../failure.js";
import { AwakeClock } from "../protocol/awake-clock.js";
import { connectTo } from "../protocol/connect.js";
import { MOST_VALUE_BYTES, messagesOf, piecesOf } from "../protocol/frames.js";
import { type Settings, settingsSchema, type Task, taskSchema } from "../protocol/job.js";
import {
  type LauncherMessage,
  launcherMessageSchema,
  MOST_HEADER_BYTES,
  parseMessage,
  pulsesPerTimeout,
  type ToldFailure,
  type WorkerMessage,
} from "../protocol/messages.js";
import { isStopped } from "../protocol/process-stat.js";
import { rendezvousVariables } from "../protocol/variables.js";
import type { WorkerEnvironment } from "./environment.js";

/** The leave to begin a step, the same for every rank. */
export interface Ticket {
  /** What the step leaves is to be shown. */
  readonly preview: boolean;
}

/** What the ranks share through their launcher while they work on one request. */
export interface Store {
  readonly rank: number;
  readonly size: number;
  /** Stores a value under a key for every rank, until the request is over; a later put of the same key replaces it. */
  put(key: string, value: Uint8Array): Promise<void>;
  /** Waits until some rank has put the key. @throws DitrunError after the deadline, or when another rank failed. */
  get(key: string): Promise<Uint8Array>;
  /** Waits until every rank has come. @throws DitrunError naming the ranks missing at the deadline, or the rank that failed. */
  barrier(name: string): Promise<void>;
  /** A barrier to which every rank brings a number. @returns the largest of them, on every rank. */
  largest(name: string, value: number): Promise<number>;
  /** The launcher's CLOCK_MONOTONIC in microseconds, at some time between the question and the answer. */
  time(): Promise<number>;
  /**
   * Gives whoever made the request something before the result, a progress report or a frame of video. Resolves when it
   * has been dealt with, in the order of the calls: whoever awaits it keeps no more on the way than the launcher can take.
   */
  emit(name: string, value: Uint8Array): Promise<void>;
  /**
   * Asks whether a step of the request may begin; every rank gets the same answer. To be asked for while the step before it
   * runs, and awaited only then.
   * @returns a function that waits for the answer. @throws Stopped, from that function, when the request ends here.
   */
  step(step: number): () => Promise<Ticket>;
  /** Says that the request cannot be done, though this rank goes on with it until it is stopped: others may have been told of the next step. */
  fault(error: DitrunError): Promise<void>;
}

/** The same store with keys and barriers of its own, for work that may come twice in a request. */
export function scoped(store: Store, scope: string): Store {
  return {
    ...store,
    put: (key, value) => store.put(`${scope}/${key}`, value),
    get: (key) => store.get(`${scope}/${key}`),
    barrier: (name) => store.barrier(`${scope}/${name}`),
    largest: (name, value) => store.largest(`${scope}/${name}`, value),
  };
}

/** A request ends here on every rank, because of what one of them or whoever made it has said. */
export class Stopped extends DitrunError {
  constructor(message: string) {
    super("ERR_ABORTED", message);
  }
}

/**
 * A request that cannot be done, by a rank that can serve others. Every rank must come to the same at the same point of the
 * request, before any waits for another on the device.
 */
export class RequestFault extends DitrunError {}

/** A request as the launcher hands it out. */
export interface Request {
  readonly number: number;
  readonly task: Task;
}

type Body<T> = T extends { id: number } ? Omit<T, "id"> : never;
interface Reply {
  message: LauncherMessage;
  value: Uint8Array | undefined;
}
interface Pending {
  resolve(reply: Reply): void;
  reject(error: DitrunError): void;
}

/** The launcher names the missing ranks at the deadline; a worker waits a little longer before it gives the launcher up. */
const MARGIN_SECONDS = 5;
/** How long a failing worker waits for its launcher to take note. */
const FAREWELL_SECONDS = 2;
/** What a rank tells of its failure at most; its own stderr has the rest. */
const MOST_MESSAGE_CHARACTERS = 8192;

/** What several stores of one process may have in common; each has its own by default. */
export interface SharedParts {
  readonly context: Context;
  readonly clock: AwakeClock;
}

/** A worker's end of the rendezvous: requests come from it, and how they ended goes to it. */
export class WorkerStore {
  readonly #socket: Dealer;
  readonly #pending = new Map<number, Pending>();
  /** A launcher that is stopped (Ctrl-Z) answers when it goes on. */
  readonly #clock: AwakeClock;
  #sending: Promise<void> = Promise.resolve();
  #nextId = 0;
  #settings: Settings | undefined;
  #closed = false;
  #ended: DitrunError | undefined;
  #pulse: NodeJS.Timeout | undefined;

  private constructor(
    private readonly environment: WorkerEnvironment,
    { context, clock }: SharedParts,
  ) {
    this.#clock = clock;
    try {
      this.#socket = new Dealer({
        context,
        curveServerKey: environment.serverKey,
        curvePublicKey: environment.publicKey,
        curveSecretKey: environment.secretKey,
        ipv6: environment.address.includes(":"),
        linger: 0,
        sendHighWaterMark: 0,
        receiveHighWaterMark: 0,
      });
    } catch (error) {
      const { serverKey, publicKey, secretKey } = rendezvousVariables;
      throw new DitrunError(
        "ERR_WORKER_ENVIRONMENT",
        `${serverKey}, ${publicKey} and ${secretKey} cannot be used (${messageOf(error)}): each must be a CURVE key in Z85, as the launcher gives its workers.`,
        { cause: error },
      );
    }
  }

  /** Joins the job. @throws DitrunError when the launcher does not answer in time or refuses this rank. */
  static async join(
    environment: WorkerEnvironment,
    shared: SharedParts = {
      context: new Context({ blocky: false }),
      clock: new AwakeClock(() => isStopped(process.ppid)),
    },
  ): Promise<WorkerStore> {
    const store = new WorkerStore(environment, shared);
    try {
      store.#connect();
      void store.#receive();
      const body = { type: "join" as const, rank: environment.rank, host: hostname(), pid: process.pid };
      const { message, value } = await store.#ask(body, environment.timeoutSeconds, "the request to join");
      if (message.type !== "joined") {
        throw new DitrunError("ERR_PROTOCOL", `The launcher answered a join with ${message.type}.`);
      }
      store.#settings = settingsSchema.parse(jsonOf(value));
      store.#startPulse();
      return store;
    } catch (error) {
      store.close();
      throw error;
    }
  }

  #connect(): void {
    const { address, port } = this.environment;
    try {
      connectTo(this.#socket, `tcp://${address.includes(":") ? `[${address}]` : address}:${port}`);
    } catch (error) {
      throw new DitrunError(
        "ERR_LAUNCHER_LOST",
        `There is no way to a launcher at ${address}:${port} (${messageOf(error)}): check MASTER_ADDR and MASTER_PORT.`,
        { cause: error },
      );
    }
  }

  /** Comes from the thread that must not block, and so tells a worker that is stopped or stuck from one that computes. */
  #startPulse(): void {
    const milliseconds = (this.settings.timeoutSeconds * 1000) / pulsesPerTimeout;
    this.#pulse = setInterval(() => this.#giveSign(), milliseconds).unref();
  }

  #giveSign(): void {
    const alive: WorkerMessage = { type: "alive", id: 0 };
    this.#send(JSON.stringify(alive));
  }

  get rank(): number {
    return this.environment.rank;
  }

  get size(): number {
    return this.environment.size;
  }

  get settings(): Settings {
    if (!this.#settings) throw new DitrunError("ERR_LAUNCHER_LOST", `Rank ${this.rank} has not joined yet.`);
    return this.#settings;
  }

  /** Waits for the next request, however long that takes. @returns undefined when there will be no more. */
  async next(): Promise<Request | undefined> {
    const { message, value } = await this.#ask({ type: "next" }, Number.POSITIVE_INFINITY, "the request for work");
    if (message.type === "end") return undefined;
    if (message.type === "request") return { number: message.request, task: taskSchema.parse(jsonOf(value)) };
    throw new DitrunError("ERR_PROTOCOL", `The launcher answered the request for work with ${message.type}.`);
  }

  /** What the ranks share while they work on a request. */
  storeOf(request: number): Store {
    const { rank, size } = this;
    return {
      rank,
      size,
      put: async (key, value) => {
        await this.#ask({ type: "put", key, request }, this.#patience, `the value of "${key}"`, value);
      },
      get: async (key) => {
        const { value } = await this.#ask({ type: "get", key }, this.#patience, `the request for "${key}"`);
        return value ?? new Uint8Array();
      },
      barrier: async (name) => {
        await this.#ask({ type: "barrier", name }, this.#patience, `barrier "${name}"`);
      },
      largest: async (name, value) => {
        const { message } = await this.#ask({ type: "largest", name, value }, this.#patience, `barrier "${name}"`);
        if (message.type === "largest") return message.value;
        throw new DitrunError("ERR_PROTOCOL", `The launcher answered barrier "${name}" with ${message.type}.`);
      },
      time: async () => {
        const { message } = await this.#ask({ type: "time" }, this.#patience, "the question for the time");
        if (message.type === "time") return message.microseconds;
        throw new DitrunError("ERR_PROTOCOL", `The launcher answered the question for the time with ${message.type}.`);
      },
      emit: async (name, value) => {
        await this.#ask({ type: "emit", name }, this.#patience, `the ${name}`, value);
      },
      step: (step) => {
        const asked = this.#ask({ type: "step", request, step }, this.#patience, `the request for step ${step}`);
        // It is awaited later; until then a failure is nobody's.
        asked.catch(() => undefined);
        return async () => {
          const { message } = await asked;
          if (message.type === "stop") throw new Stopped(message.message);
          return { preview: message.type === "go" && message.preview };
        };
      },
      fault: (error) => this.fault(request, error),
    };
  }

  /** Says why a request cannot be done. */
  async fault(request: number, error: DitrunError): Promise<void> {
    await this.#ask({ type: "fault", request, ...toldOf(error) }, this.#patience, "the fault");
  }

  /** Reports that this rank has ended a request early. */
  async stopped(request: number): Promise<void> {
    await this.#ask({ type: "stopped", request }, this.#patience, "the end of the request");
  }

  /** Reports this rank's result of a request: plain JSON. @throws DitrunError when it is not, a NaN for instance. */
  async result(request: number, result: unknown): Promise<void> {
    const text = JSON.stringify(result ?? null, (key, value: unknown) => {
      // JSON would turn it into null without a word.
      if (typeof value === "number" && !Number.isFinite(value)) {
        const message = `The result of rank ${this.rank} is not plain JSON: its ${key} is ${value}.`;
        throw new DitrunError("ERR_RESULT", message);
      }
      return value;
    });
    await this.#ask({ type: "result", request }, this.#patience, "the result", new TextEncoder().encode(text));
  }

  /** Reports that this rank cannot go on. False when nobody took note, so that it must be said elsewhere. */
  async fail(error: DitrunError, cause: "own" | "peer"): Promise<boolean> {
    // Once another rank has failed the launcher knows all that it needs.
    if (this.#ended) return true;
    try {
      await this.#ask({ type: "fail", ...toldOf(error), cause }, FAREWELL_SECONDS, "the failure");
      return true;
    } catch (why) {
      if (why instanceof DitrunError) return this.#ended === why;
      throw why;
    }
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    clearInterval(this.#pulse);
    // With it end all deadlines.
    this.#end(new DitrunError("ERR_LAUNCHER_LOST", `Rank ${this.rank} has closed its store.`));
    this.#socket.close();
  }

  get #patience(): number {
    return this.settings.timeoutSeconds + MARGIN_SECONDS;
  }

  async #ask(body: Body<WorkerMessage>, seconds: number, what: string, value?: Uint8Array): Promise<Reply> {
    if (this.#ended) throw this.#ended;
    const id = this.#nextId++;
    const { address, port } = this.environment;
    const header = JSON.stringify({ ...body, id });
    checkSize(what, Buffer.byteLength(header), MOST_HEADER_BYTES);
    checkSize(what, value?.length ?? 0, MOST_VALUE_BYTES);
    const { message, value: answer } = await new Promise<Reply>((resolve, reject) => {
      const callOff = this.#after(seconds, () => {
        this.#pending.delete(id);
        const message = `The launcher at ${address}:${port} did not answer ${what} of rank ${this.rank} within ${seconds} s: check that it runs and that the address, the port and the keys are those of this job.`;
        reject(new DitrunError("ERR_LAUNCHER_LOST", message));
      });
      this.#pending.set(id, {
        resolve: (reply) => {
          callOff();
          resolve(reply);
        },
        reject: (error) => {
          callOff();
          reject(error);
        },
      });
      this.#send(header, value);
    });
    if (message.type !== "refused") return { message, value: answer };
    throw message.cause === "peer"
      ? new PeerFailure(message.message)
      : new DitrunError("ERR_RENDEZVOUS", message.message);
  }

  #after(seconds: number, then: () => void): () => void {
    return Number.isFinite(seconds) ? this.#clock.after(seconds * 1000, then) : () => undefined;
  }

  /** A DEALER takes one message at a time. */
  #send(header: string, value?: Uint8Array): void {
    this.#sending = this.#sending
      .then(async () => {
        if (!this.#closed) await this.#socket.send([header, ...piecesOf(value ?? new Uint8Array())]);
      })
      .catch((error: unknown) =>
        this.#end(new DitrunError("ERR_LAUNCHER_LOST", `The launcher cannot be reached: ${messageOf(error)}.`)),
      );
  }

  async #receive(): Promise<void> {
    for await (const [header, value] of messagesOf(this.#socket)) {
      if (header === undefined) continue;
      let message: LauncherMessage;
      try {
        message = parseMessage(launcherMessageSchema, header);
      } catch (error) {
        this.#end(new DitrunError("ERR_PROTOCOL", `A message of the launcher is not valid: ${messageOf(error)}.`));
        continue;
      }
      if (message.type === "ping") {
        this.#giveSign();
        continue;
      }
      if (message.type === "abort") {
        this.#end(new PeerFailure(message.message));
        continue;
      }
      const pending = this.#pending.get(message.id);
      this.#pending.delete(message.id);
      pending?.resolve({ message, value });
    }
  }

  /** Rejects every wait, now and later. */
  #end(error: DitrunError): void {
    this.#ended ??= error;
    for (const pending of this.#pending.values()) pending.reject(this.#ended);
    this.#pending.clear();
  }
}

function toldOf({ code, message, exitCode }: DitrunError): ToldFailure {
  return { code, message: message.slice(0, MOST_MESSAGE_CHARACTERS), exitCode };
}

function checkSize(what: string, bytes: number, most: number): void {
  if (bytes <= most) return;
  throw new DitrunError("ERR_RESULT", `${what} has ${bytes} bytes; a launcher takes ${most} at most.`);
}

const jsonOf = (value: Uint8Array | undefined): unknown => JSON.parse(new TextDecoder().decode(value));
