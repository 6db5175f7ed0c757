import type { FailureCode } from "../../failure.js";
import type { Whereabouts } from "../whereabouts.js";
import type { Answers, Question } from "./answers.js";

/** Why a request ends early, told by a rank or by whoever made it. */
export interface Stop {
  readonly code: FailureCode;
  readonly message: string;
  /** Where it is not that of the code. */
  readonly exitCode?: number;
  /** The rank that told of it. */
  readonly rank?: number;
}

/** How a request ended: with a result of each rank, or early. */
export type Outcome =
  | { readonly kind: "results"; readonly results: readonly Uint8Array[] }
  | { readonly kind: "stopped"; readonly stop: Stop };

/** What was answered for a step: why it must not begin, or whether what it leaves is to be shown. */
type Answer = { readonly stop: string } | { readonly preview: boolean };

interface Current {
  readonly number: number;
  readonly task: Uint8Array;
  readonly given: Set<number>;
  readonly steps: Map<number, Answer>;
  readonly wantsPreview: () => boolean;
  readonly results: Map<number, Uint8Array>;
  readonly ended: Set<number>;
  stop: Stop | undefined;
  readonly done: (outcome: Outcome) => void;
}

/**
 * Hands requests to the ranks, one after the other, and keeps them in step: the first answer about a step of a request is the
 * answer for every rank, so that all of them stop before the same step.
 */
export class Requests {
  readonly #waiting = new Map<number, Question>();
  #current: Current | undefined;
  #over = false;
  #next = 0;

  /** @param onEarlyEnd is told once when a rank has ended its part early, since the others must follow soon. */
  constructor(
    private readonly size: number,
    private readonly whereabouts: Whereabouts,
    private readonly answers: Answers,
    private readonly onEarlyEnd: (request: number) => void,
  ) {}

  /** Whether a request is at hand. */
  get busy(): boolean {
    return this.#current !== undefined;
  }

  /** The request at hand. */
  get number(): number | undefined {
    return this.#current?.number;
  }

  /** Whether the rank still owes its part of the request at hand. */
  owes(rank: number): boolean {
    return this.#current !== undefined && !this.#current.ended.has(rank);
  }

  /** Whether the request has reached its first step. */
  get stepping(): boolean {
    return (this.#current?.steps.size ?? 0) > 0;
  }

  /**
   * Hands out a request; there is none at hand. @param wantsPreview asked once for each step that may begin.
   * @returns how it ended, once every rank has said so.
   */
  hand(task: Uint8Array, wantsPreview = () => false): Promise<Outcome> {
    if (this.#current) throw new Error("A request is at hand already.");
    return new Promise((done) => {
      const number = this.#next++;
      const sets = { given: new Set<number>(), steps: new Map(), results: new Map(), ended: new Set<number>() };
      this.#current = { number, task, ...sets, wantsPreview, stop: undefined, done };
      for (const question of [...this.#waiting.values()]) this.#give(question);
    });
  }

  /** Tells every rank, now or when it asks, that there will be no more. */
  end(): void {
    this.#over = true;
    for (const question of this.#waiting.values()) this.answers.end(question);
    this.#waiting.clear();
  }

  next(question: Question): void {
    this.whereabouts.saw(question.rank, "asked for a request");
    if (this.#over) this.answers.end(question);
    else if (this.#current && !this.#current.given.has(question.rank)) this.#give(question);
    else this.#waiting.set(question.rank, question);
  }

  /** Ends the request at hand before the next step that no rank has been told of. The first reason counts. */
  stop(stop: Stop, request = this.#current?.number): void {
    if (this.#current && this.#current.number === request) this.#current.stop ??= stop;
  }

  step(question: Question, request: number, step: number): void {
    const current = this.#ofQuestion(question, request);
    if (!current) return;
    const { stop, steps, wantsPreview } = current;
    const answer = steps.get(step) ?? (stop ? { stop: stop.message } : { preview: wantsPreview() });
    steps.set(step, answer);
    this.whereabouts.saw(question.rank, `came to step ${step}`);
    if ("stop" in answer) this.answers.stop(question, answer.stop);
    else this.answers.go(question, answer.preview);
  }

  result(question: Question, request: number, value: Uint8Array): void {
    const current = this.#ofQuestion(question, request);
    if (!current) return;
    this.whereabouts.saw(question.rank, "reported its result");
    this.answers.done(question);
    current.results.set(question.rank, value);
    this.#ended(current, question.rank);
  }

  stopped(question: Question, request: number): void {
    const current = this.#ofQuestion(question, request);
    if (!current) return;
    this.whereabouts.saw(question.rank, "stopped");
    this.answers.done(question);
    // Every rank that has ended before had a result.
    if (current.ended.size === current.results.size) this.onEarlyEnd(request);
    this.#ended(current, question.rank);
  }

  #give(question: Question): void {
    const current = this.#current;
    if (!current) return;
    this.#waiting.delete(question.rank);
    current.given.add(question.rank);
    this.whereabouts.saw(question.rank, `took request ${current.number}`);
    this.answers.request(question, current.number, current.task);
  }

  #ofQuestion(question: Question, request: number): Current | undefined {
    const current = this.#current;
    if (current?.number === request && !current.ended.has(question.rank)) return current;
    this.answers.refuse(question, `Request ${request} is not at hand.`, "own");
    return undefined;
  }

  #ended(current: Current, rank: number): void {
    current.ended.add(rank);
    if (current.ended.size < this.size) return;
    this.#current = undefined;
    const results = Array.from({ length: this.size }, (_, each) => current.results.get(each));
    const all = results.filter((result) => result !== undefined);
    if (current.stop === undefined || (all.length === this.size && current.stop.rank === undefined)) {
      current.done(
        all.length === this.size
          ? { kind: "results", results: all }
          : { kind: "stopped", stop: { code: "ERR_INTERNAL", message: "A rank ended a request without a reason." } },
      );
    } else current.done({ kind: "stopped", stop: current.stop });
  }
}
