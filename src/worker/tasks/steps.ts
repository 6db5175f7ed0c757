import type { Store, Ticket } from "../store.js";

/** The steps of a request, each of which every rank may begin or none: asked for while the one before it runs. */
export class Steps {
  #number = 0;
  #answer: () => Promise<Ticket>;

  constructor(private readonly store: Store) {
    this.#answer = store.step(0);
  }

  /** Waits for the answer about the next step. @throws Stopped where it must not begin. */
  async begin(): Promise<Ticket> {
    return this.#answer();
  }

  /** Asks about the step after it; its work has been queued. */
  ask(): void {
    this.#number++;
    this.#answer = this.store.step(this.#number);
  }
}
