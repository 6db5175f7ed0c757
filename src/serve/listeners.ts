/** What is new of a video. */
export type News = "status" | "progress" | "preview";
export type Listener = (what: News) => void;

/** Who follows which video. */
export class Listeners {
  /** With whether each wants previews. */
  readonly #byId = new Map<string, Map<Listener, boolean>>();

  /** @param previews whether it is told of previews too. @returns how to stop following. */
  add(id: string, listener: Listener, previews: boolean): () => void {
    const all = this.#byId.get(id) ?? new Map<Listener, boolean>();
    this.#byId.set(id, all.set(listener, previews));
    return () => {
      all.delete(listener);
      if (all.size === 0 && this.#byId.get(id) === all) this.#byId.delete(id);
    };
  }

  /** Videos that somebody follows. */
  get ids(): string[] {
    return [...this.#byId.keys()];
  }

  wantsPreview(id: string): boolean {
    return [...(this.#byId.get(id)?.values() ?? [])].includes(true);
  }

  tell(id: string, what: News): void {
    for (const [listener, previews] of this.#byId.get(id) ?? []) {
      if (what !== "preview" || previews) listener(what);
    }
  }
}
