import { DitrunError, type FailureCode } from "../failure.js";
import { readText } from "./read-text.js";

/** Of a refusal; the rest of it is not what whoever reads it looks for. */
const refusalLimits = { mostBytes: 2 ** 20, mostMs: 10_000 };
const MOST_CHARACTERS = 1000;

/** How a server has refused. */
interface Refusal {
  readonly status: number;
  /** The server's own code, as `queue_full`. */
  readonly serverCode?: string | undefined;
  /** The field that is to blame. */
  readonly param?: string | undefined;
  /** Under which the server's log has it. */
  readonly requestId?: string | undefined;
}

/** What a server has answered in place of what was asked for. `code` is ERR_SERVER_REFUSED, or ERR_SERVER_BUSY where it may work later. */
export class ServerError extends DitrunError {
  readonly status: number;
  readonly serverCode: string | undefined;
  readonly param: string | undefined;
  readonly requestId: string | undefined;

  constructor(code: FailureCode, message: string, { status, serverCode, param, requestId }: Refusal) {
    super(code, message);
    this.status = status;
    this.serverCode = serverCode;
    this.param = param;
    this.requestId = requestId;
  }
}

/** What a failed answer tells, in OpenAI's shape or any other. Its body is read. */
export async function refusalOf(response: Response, what: string): Promise<ServerError> {
  const { status } = response;
  const { message, code, param } = errorIn(await readText(response, refusalLimits).catch(() => ""));
  const said = message?.slice(0, MOST_CHARACTERS) ?? `it gave no reason (HTTP ${status}).`;
  const known = { status, serverCode: code, param, requestId: response.headers.get("x-request-id") ?? undefined };
  if (status === 429 || status >= 500) {
    return new ServerError("ERR_SERVER_BUSY", `The server cannot ${what} now: ${said}`, known);
  }
  return new ServerError("ERR_SERVER_REFUSED", `The server refuses to ${what}: ${said}`, known);
}

function errorIn(text: string): { message?: string; code?: string; param?: string } {
  const error = fieldOf(parsed(text), "error");
  const message = fieldOf(error, "message");
  const code = fieldOf(error, "code");
  const param = fieldOf(error, "param");
  return {
    ...(typeof message === "string" && { message }),
    ...(typeof code === "string" && { code }),
    ...(typeof param === "string" && { param }),
  };
}

/** @returns undefined for what is no JSON. */
export function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** A field of something that may be no object. */
export function fieldOf(value: unknown, name: string): unknown {
  return typeof value === "object" && value !== null ? Reflect.get(value, name) : undefined;
}
