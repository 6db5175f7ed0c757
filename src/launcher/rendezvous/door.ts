import type { Router } from "zeromq";
import { messageOf } from "../../failure.js";
import { processLimit } from "../process-limit.js";
import { Complaints } from "./complaints.js";
import { PortSockets } from "./port-sockets.js";

/** Connections beyond those expected, of strangers or of peers that come anew: at most so many, and a part of the open files allowed. */
const MOST_STRANGERS = 256;
const LEAST_STRANGERS = 16;
const FILES_PER_STRANGER = 8;
const LOOK_MILLISECONDS = 100;

/**
 * Keeps the connections of a server's socket to a number: libzmq takes as many as come, and each costs memory and a file before it
 * has shown a key. When there are too many the kernel drops what asks for more, until some have ended; those that are connected
 * notice nothing.
 */
export class Door {
  readonly #extra: number;
  readonly #complaints: Complaints;
  /** May come before they are counted again. */
  #left: number;
  #sockets: Promise<PortSockets> | undefined;
  #looking: NodeJS.Timeout | undefined;
  #counting = false;
  #unbounded = false;
  #closed = false;

  /** @param expected peers that have a right to come. @param port after the socket is bound. */
  constructor(
    socket: Router,
    private readonly expected: number,
    private readonly port: () => number,
    private readonly warn: (message: string) => void,
    files = processLimit("Max open files") ?? Number.POSITIVE_INFINITY,
  ) {
    this.#extra = Math.max(LEAST_STRANGERS, Math.min(MOST_STRANGERS, Math.floor(files / FILES_PER_STRANGER)));
    this.#left = this.#usual;
    this.#complaints = new Complaints("times there were too many connections", warn);
    socket.events.on("accept", () => {
      if (this.#unbounded || this.#closed) return;
      // Loaded with the first that is not expected, so that a flood finds it ready.
      if (--this.#left < this.#extra / 2) this.#sockets ??= this.#load();
      if (this.#left > 0 || this.#counting || this.#looking !== undefined) return;
      this.#look();
    });
  }

  close(): void {
    this.#closed = true;
    clearInterval(this.#looking);
    this.#complaints.close();
  }

  #look(): void {
    this.#counting = true;
    this.#sockets ??= this.#load();
    this.#sockets
      .then((sockets) => {
        if (this.#closed || sockets.connected <= this.#usual) return;
        sockets.shut(true);
        const message = `More than ${this.#usual} connections are open at port ${this.port()}: others wait until some have ended.`;
        this.#complaints.add(message);
        this.#looking = setInterval(() => this.#openAgain(sockets), LOOK_MILLISECONDS).unref();
      })
      .catch((error: unknown) => this.#giveUp(error))
      .finally(() => {
        this.#left = this.#extra / 2;
        this.#counting = false;
      });
  }

  #load(): Promise<PortSockets> {
    const sockets = PortSockets.of(this.port());
    // Where it fails, whoever waits for it says so.
    sockets.catch(() => undefined);
    return sockets;
  }

  #openAgain(sockets: PortSockets): void {
    try {
      if (this.#closed || sockets.connected > this.expected + this.#extra / 4) return;
      sockets.shut(false);
      this.#left = this.#extra / 2;
    } catch (error) {
      this.#giveUp(error);
    }
    clearInterval(this.#looking);
    this.#looking = undefined;
  }

  /** With more than these it is shut; as many again may come while they are counted. */
  get #usual(): number {
    return this.expected + this.#extra / 2;
  }

  #giveUp(error: unknown): void {
    this.#unbounded = true;
    this.warn(`The connections at port ${this.port()} cannot be bounded: ${messageOf(error)}.`);
  }
}
