import type { AwakeClock } from "../../protocol/awake-clock.js";
import { missingFrom, type Whereabouts } from "../whereabouts.js";
import type { Answers, Question } from "./answers.js";

/** Far more than any task puts; what is beyond is a mistake, and would fill the launcher's memory. */
const MOST_KEYS = 65_536;
const MOST_BYTES = 512 * 2 ** 20;

interface Reader {
  readonly question: Question;
  readonly callOff: () => void;
}

/** The rendezvous's key-value store: a get waits for the put, until a deadline. */
export class KeyValues {
  readonly #values = new Map<string, Uint8Array>();
  readonly #readers = new Map<string, Set<Reader>>();
  /** Keys that are forgotten with a request. */
  readonly #ofRequest = new Map<number, Set<string>>();
  #bytes = 0;
  #reading = 0;

  constructor(
    private readonly size: number,
    private readonly timeoutSeconds: number,
    private readonly clock: AwakeClock,
    private readonly whereabouts: Whereabouts,
    private readonly answers: Answers,
    /** Whether a rank that waited in vain need not be told: the reason is known, and ends all. */
    private readonly explained: () => boolean = () => false,
  ) {}

  /** Whether a rank waits for a key. */
  get awaited(): boolean {
    return this.#reading > 0;
  }

  /** @param request with which the key is forgotten; without one it stays. */
  put(question: Question, key: string, value: Uint8Array, request?: number): void {
    const bytes = this.#bytes - (this.#values.get(key)?.length ?? 0) + value.length;
    if (bytes > MOST_BYTES || (this.#values.size >= MOST_KEYS && !this.#values.has(key))) {
      const message = `There is no room for "${key}": the store of a job takes ${MOST_KEYS} keys and ${MOST_BYTES} bytes.`;
      this.answers.refuse(question, message, "own");
      return;
    }
    this.#bytes = bytes;
    this.#values.set(key, value);
    if (request !== undefined) {
      const keys = this.#ofRequest.get(request) ?? new Set();
      this.#ofRequest.set(request, keys.add(key));
    }
    this.whereabouts.saw(question.rank, `put "${key}"`);
    this.answers.done(question);
    const readers = this.#readers.get(key) ?? [];
    this.#readers.delete(key);
    for (const { question: reader, callOff } of readers) {
      callOff();
      this.#reading--;
      this.#give(reader, key, value);
    }
  }

  /** Forgets what was put for a request that is over. */
  forget(request: number): void {
    for (const key of this.#ofRequest.get(request) ?? []) {
      this.#bytes -= this.#values.get(key)?.length ?? 0;
      this.#values.delete(key);
    }
    this.#ofRequest.delete(request);
  }

  get(question: Question, key: string): void {
    const value = this.#values.get(key);
    if (value !== undefined) {
      this.#give(question, key, value);
      return;
    }
    if (this.#reading >= MOST_KEYS) {
      this.answers.refuse(question, `More than ${MOST_KEYS} requests wait for a key already.`, "own");
      return;
    }
    this.#reading++;
    const readers = this.#readers.get(key) ?? new Set();
    const reader = { question, callOff: this.clock.after(this.timeoutSeconds * 1000, () => this.#giveUp(key, reader)) };
    this.#readers.set(key, readers.add(reader));
    this.whereabouts.saw(question.rank, `asked for "${key}"`);
  }

  #give(question: Question, key: string, value: Uint8Array): void {
    this.whereabouts.saw(question.rank, `was given "${key}"`);
    this.answers.value(question, value);
  }

  #giveUp(key: string, reader: Reader): void {
    const readers = this.#readers.get(key) ?? new Set();
    const others = missingFrom(
      this.size,
      [...readers].map(({ question }) => question.rank),
    );
    const seen = others.length === 0 ? "; all ranks ask for it" : this.whereabouts.of(others);
    readers.delete(reader);
    if (readers.size === 0) this.#readers.delete(key);
    this.#reading--;
    if (this.explained()) return;
    // No rank is known to be at fault, so the one that waited tells of it.
    this.answers.refuse(reader.question, `No rank has put "${key}" within ${this.timeoutSeconds} s${seen}.`, "peer");
  }
}
