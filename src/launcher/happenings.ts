/** Waits for conditions that may change whenever something happens. */
export class Happenings {
  #wake: () => void = () => undefined;

  /** Something has happened. */
  tell(): void {
    this.#wake();
  }

  /** Resolves once the condition holds, looking whenever something has happened, or when the time is over. */
  async until(condition: () => boolean, milliseconds = Number.POSITIVE_INFINITY): Promise<void> {
    let over = false;
    const deadline = Number.isFinite(milliseconds)
      ? setTimeout(() => {
          over = true;
          this.#wake();
        }, milliseconds)
      : undefined;
    while (!over && !condition()) {
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
    clearTimeout(deadline);
  }
}
