/**
 * Exit codes of ditrun. A failed worker's own code, or 128 + signal, passes through unchanged.
 */
export const exitCodes = {
  ok: 0,
  /** A result was wrong: accuracy above its tolerance. */
  mismatch: 1,
  /** Bad options, plan, model or input file. */
  usage: 2,
  /** No GPU, no kernel module, a missing library. */
  environment: 3,
  /** Ranks missing, a deadline passed, a port taken. */
  rendezvous: 4,
  /** A worker failed in a way that has no code of its own. */
  worker: 5,
  /** A mistake in ditrun itself. */
  internal: 70,
} as const;

/** Control characters but for the line's end, and those that change a line's direction. */
// biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for.
const controls = /[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]/g;

/** The text with its control characters as escapes, `\u001b`, so that nothing that it quotes steers a terminal. */
export function escapeControls(text: string): string {
  return text.replace(controls, (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`);
}

/** An error whose message is a whole sentence for the user, with the values in it and the way out; printed without a stack. */
export class DitrunError extends Error {
  override readonly name = "DitrunError";
  constructor(
    message: string,
    readonly exitCode: number = exitCodes.usage,
    options?: ErrorOptions,
  ) {
    super(escapeControls(message), options);
  }
}

/**
 * What a rank says when others are to blame: a peer is gone or did not come, or the job has been ended. The launcher names such
 * a failure only where no rank tells of one of its own.
 */
export class PeerFailure extends DitrunError {
  constructor(message: string, options?: ErrorOptions) {
    super(message, exitCodes.rendezvous, options);
  }
}

/** The message of anything thrown. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
