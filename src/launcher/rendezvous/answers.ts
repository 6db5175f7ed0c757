/** What a rank has asked, and waits for the answer of. */
export interface Question {
  readonly rank: number;
  readonly id: number;
}

/** How the parts of the rendezvous answer. */
export interface Answers {
  done(question: Question): void;
  value(question: Question, value: Uint8Array): void;
  largest(question: Question, value: number): void;
  request(question: Question, request: number, task: Uint8Array): void;
  /** There are no more requests. */
  end(question: Question): void;
  /** @param preview whether what the step leaves is to be shown. */
  go(question: Question, preview: boolean): void;
  stop(question: Question, message: string): void;
  /** @param cause whether the rank that asked is to blame, or others. */
  refuse(question: Question, message: string, cause: "own" | "peer"): void;
}
