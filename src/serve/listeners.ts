/** Is told that a video's state or its progress has changed. */
export type Listener = (what: "status" | "progress") => void;

/** Who follows which video. */
export class Listeners {
  readonly #byId = new Map<string, Set<Listener>>();

  /** @returns how to stop following. */
  add(id: string, listener: Listener): () => void {
    const all = this.#byId.get(id) ?? new Set();
    this.#byId.set(id, all.add(listener));
    return () => {
      all.delete(listener);
      if (all.size === 0 && this.#byId.get(id) === all) this.#byId.delete(id);
    };
  }

  tell(id: string, what: "status" | "progress"): void {
    for (const listener of this.#byId.get(id) ?? []) listener(what);
  }
}
