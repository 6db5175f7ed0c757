import { exitCodes, type FailureCode, failureCodes } from "./failure-codes.js";

export { exitCodes, type FailureCode };

/** Control characters but for the line's end, and those that change a line's direction. */
// biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for.
const controls = /[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]/g;

/** The text with its control characters as escapes, `\u001b`, so that nothing that it quotes steers a terminal. */
export function escapeControls(text: string): string {
  return text.replace(controls, (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`);
}

/** What else is known of a failure. */
export interface FailureDetails {
  /** What was caught. */
  readonly cause?: unknown;
  /** Of the process, in place of the code's own: what a failed worker ended with, or 128 + signal. */
  readonly exitCode?: number | undefined;
  /** The rank that failed first. */
  readonly rank?: number | undefined;
  /** The host of that rank. */
  readonly host?: string | undefined;
  /** The signal that ended that rank or the job. */
  readonly signal?: string | undefined;
}

/**
 * An error whose message is a whole sentence for the user, with the values in it and the way out; printed without a stack.
 * `code` says its kind and is stable; docs/errors.md lists them all.
 */
export class DitrunError extends Error {
  override readonly name = "DitrunError";
  readonly exitCode: number;
  readonly rank: number | undefined;
  readonly host: string | undefined;
  readonly signal: string | undefined;

  constructor(
    readonly code: FailureCode,
    message: string,
    { cause, exitCode, rank, host, signal }: FailureDetails = {},
  ) {
    super(escapeControls(message), cause === undefined ? undefined : { cause });
    this.exitCode = exitCode ?? failureCodes[code].exitCode;
    this.rank = rank;
    this.host = host;
    this.signal = signal;
  }
}

/**
 * What a rank says when others are to blame: a peer is gone or did not come, or the job has been ended. The launcher names such
 * a failure only where no rank tells of one of its own.
 */
export class PeerFailure extends DitrunError {
  constructor(message: string, details?: FailureDetails) {
    super("ERR_PEER_LOST", message, details);
  }
}

/** Whether it may not come again, so that all ranks may be started anew: a rank failed, and no file or program is missing. */
export function isPassing(error: unknown): boolean {
  return error instanceof DitrunError && failureCodes[error.code].passing === true;
}

/** Anything thrown as a DitrunError: what is none is a mistake in ditrun, unless another code is given. */
export function asDitrunError(error: unknown, code: FailureCode = "ERR_INTERNAL"): DitrunError {
  return error instanceof DitrunError ? error : new DitrunError(code, messageOf(error), { cause: error });
}

/** The message of anything thrown. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
