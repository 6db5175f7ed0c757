/** Says so many of the same kind one by one, and only counts those after them. */
const SPOKEN = 5;

/** Complaints that somebody else can cause as often as they like. */
export class Complaints {
  #count = 0;

  /** @param what is the end of a sentence about those that were only counted: "messages were not valid". */
  constructor(
    private readonly what: string,
    private readonly say: (message: string) => void,
  ) {}

  add(message: string): void {
    if (++this.#count <= SPOKEN) this.say(message);
    if (this.#count === SPOKEN) this.say("More of this kind are only counted.");
  }

  /** Says how many there were beyond those that were told of. */
  close(): void {
    if (this.#count > SPOKEN) this.say(`${this.#count - SPOKEN} more ${this.what}.`);
    this.#count = 0;
  }
}
