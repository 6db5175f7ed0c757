import type { z } from "zod";
import { DitrunError } from "../failure.js";
import type { errorSchema } from "./schemas.js";

const types: Readonly<Record<number, string>> = {
  401: "authentication_error",
  403: "permission_error",
  404: "not_found_error",
  429: "rate_limit_error",
};

interface Details {
  readonly param?: string | undefined;
  readonly headers?: Readonly<Record<string, string>>;
}

/** What a request is refused with, in the shape that OpenAI's clients read. */
export class ApiError extends Error {
  override readonly name = "ApiError";
  readonly param: string | undefined;
  readonly headers: Readonly<Record<string, string>>;

  /** @param message a sentence for whoever sent the request. @param code stable, for programs. */
  constructor(
    readonly status: number,
    readonly code: string,
    message: string,
    { param, headers = {} }: Details = {},
  ) {
    super(message);
    this.param = param;
    this.headers = headers;
  }

  get body(): z.infer<typeof errorSchema> {
    const type = types[this.status] ?? (this.status >= 500 ? "server_error" : "invalid_request_error");
    return { error: { message: this.message, type, param: this.param ?? null, code: this.code } };
  }
}

/** What is wrong with the disk where nothing more fits on it: it is full, a quota is used up, or a file may not grow. */
const full: ReadonlySet<unknown> = new Set(["ENOSPC", "EDQUOT", "EFBIG"]);

/** @returns what a request is told where the server's own disk fails; undefined for any other error. */
export function storageError(error: unknown): ApiError | undefined {
  if (!(error instanceof DitrunError) || error.code !== "ERR_FILE_WRITE") return undefined;
  const reason = error.cause instanceof Error && "code" in error.cause ? error.cause.code : undefined;
  const headers = { "retry-after": "10" };
  if (full.has(reason)) {
    return new ApiError(507, "disk_full", "The server's disk is full, so this cannot be kept. Ask again later.", {
      headers,
    });
  }
  return new ApiError(503, "disk_failed", "The server cannot write to its disk. Its log says more.", { headers });
}

/** OpenAI's clients repeat what 409 refuses, unless they are told not to. */
export function conflict(code: string, message: string): ApiError {
  return new ApiError(409, code, message, { headers: { "x-should-retry": "false" } });
}

/** A field's value cannot be had. */
export function badField(param: string, message: string, code = "invalid_value"): ApiError {
  return new ApiError(400, code, message, { param });
}

/** What a schema refuses, by its first fault. */
export function schemaError(error: z.ZodError): ApiError {
  const [issue] = error.issues;
  if (issue?.code === "unrecognized_keys") {
    const [key = ""] = issue.keys;
    return badField(key, `The field "${key}" is not known here. Leave it out.`, "unknown_parameter");
  }
  const param = issue?.path.join(".") ?? "";
  const what = param === "" ? "The request" : `"${param}"`;
  return badField(param, `${what} cannot be used: ${issue?.message ?? "it has another shape"}.`);
}
