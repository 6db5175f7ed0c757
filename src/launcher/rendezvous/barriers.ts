import type { AwakeClock } from "../../protocol/awake-clock.js";
import { missingFrom, rankList, type Whereabouts } from "../whereabouts.js";
import type { Answers, Question } from "./answers.js";

/** Far more than any task has open at once: every rank waits at one or two. */
const MOST_BARRIERS = 1024;

interface Barrier {
  readonly arrived: Map<number, Arrival>;
  readonly callOff: () => void;
}

interface Arrival {
  readonly question: Question;
  /** That the rank has brought. */
  readonly value: number | undefined;
}

/** The rendezvous's barriers: each opens when every rank has come, or breaks at its deadline. */
export class Barriers {
  readonly #barriers = new Map<string, Barrier>();

  /** @param onBroken gets the sentence that names the ranks that did not come. */
  constructor(
    private readonly size: number,
    private readonly timeoutSeconds: number,
    private readonly clock: AwakeClock,
    private readonly whereabouts: Whereabouts,
    private readonly answers: Answers,
    private readonly onBroken: (message: string) => void,
  ) {}

  /** Whether a rank waits at a barrier. */
  get awaited(): boolean {
    return this.#barriers.size > 0;
  }

  /** @param value a number, where the rank asks for the largest that was brought. */
  arrive(question: Question, name: string, value?: number): void {
    const barrier = this.#barriers.get(name) ?? this.#open(name);
    if (barrier === undefined) {
      this.answers.refuse(question, `More than ${MOST_BARRIERS} barriers are open already.`, "own");
      return;
    }
    if (barrier.arrived.has(question.rank)) {
      this.answers.refuse(question, `Rank ${question.rank} waits at barrier "${name}" already.`, "own");
      return;
    }
    barrier.arrived.set(question.rank, { question, value });
    this.whereabouts.saw(question.rank, `came to barrier "${name}"`);
    if (barrier.arrived.size < this.size) return;
    barrier.callOff();
    this.#barriers.delete(name);
    let largest = Number.NEGATIVE_INFINITY;
    for (const { value } of barrier.arrived.values()) largest = Math.max(largest, value ?? largest);
    for (const { question, value } of barrier.arrived.values()) {
      this.whereabouts.saw(question.rank, `passed barrier "${name}"`);
      if (value === undefined) this.answers.done(question);
      else this.answers.largest(question, largest);
    }
  }

  #open(name: string): Barrier | undefined {
    if (this.#barriers.size >= MOST_BARRIERS) return undefined;
    const callOff = this.clock.after(this.timeoutSeconds * 1000, () => this.#break(name));
    const barrier = { arrived: new Map<number, Arrival>(), callOff };
    this.#barriers.set(name, barrier);
    return barrier;
  }

  #break(name: string): void {
    const arrived = this.#barriers.get(name)?.arrived ?? new Map<number, Arrival>();
    this.#barriers.delete(name);
    const missing = missingFrom(this.size, arrived.keys());
    const seen = this.whereabouts.of(missing);
    const message = `${rankList(missing)} did not come to barrier "${name}" within ${this.timeoutSeconds} s${seen}.`;
    // First the launcher: those that came are not to blame.
    this.onBroken(message);
    for (const { question } of arrived.values()) this.answers.refuse(question, message, "peer");
  }
}
