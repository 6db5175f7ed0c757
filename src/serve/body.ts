import type { IncomingMessage } from "node:http";
import { Busboy, type BusboyFileStream, type BusboyInstance } from "@fastify/busboy";
import { ApiError, badField, schemaError } from "./api-error.js";
import { type CreateRequest, createSchema, limits, numberFields } from "./schemas.js";

/** Fields of a form; a request has some fifteen. */
const MOST_FIELDS = 64;

/** Reads the body of POST /v1/videos, a form or JSON. @throws ApiError where it is too large, or is none. */
export async function readCreate(request: IncomingMessage): Promise<CreateRequest> {
  const declared = Number(request.headers["content-length"] ?? 0);
  if (declared > limits.bodyBytes) throw tooLarge();
  const type = (request.headers["content-type"] ?? "").toLowerCase();
  const isForm = type.startsWith("multipart/form-data");
  if (!isForm && !type.startsWith("application/json")) {
    throw new ApiError(415, "unsupported_media_type", "The body must be application/json or multipart/form-data.");
  }
  const body = isForm ? await readForm(request) : parseJson(await readText(request));
  const parsed = createSchema.safeParse(body);
  if (parsed.success) return parsed.data;
  throw schemaError(parsed.error);
}

function tooLarge(): ApiError {
  return new ApiError(413, "request_too_large", `The body has more than ${limits.bodyBytes} bytes.`);
}

function cutOff(): ApiError {
  return new ApiError(400, "incomplete_body", "The connection ended in the middle of the body.");
}

/** Has `take` get a body's chunks, until they are too many. What it throws is the failure. */
function readChunks(request: IncomingMessage, take: (chunk: Buffer) => void): Promise<void> {
  return new Promise((resolve, reject) => {
    let bytes = 0;
    request.on("data", (chunk: Buffer) => {
      bytes += chunk.byteLength;
      if (bytes > limits.bodyBytes) {
        request.removeAllListeners("data");
        reject(tooLarge());
        return;
      }
      try {
        take(chunk);
      } catch (error) {
        reject(error);
      }
    });
    request.once("end", resolve);
    request.once("close", () => reject(cutOff()));
    request.once("error", () => reject(cutOff()));
  });
}

async function readText(request: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = [];
  await readChunks(request, (chunk) => chunks.push(chunk));
  return Buffer.concat(chunks).toString("utf8");
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    throw new ApiError(400, "invalid_json", "The body is not valid JSON.");
  }
}

/** A form's fields; those that are numbers are read as such. No file is taken. */
async function readForm(request: IncomingMessage): Promise<Record<string, unknown>> {
  const texts = new Map<string, string>();
  let fault: ApiError | undefined;
  const busboy = openBusboy(request.headers["content-type"] ?? "");
  const done = new Promise<void>((resolve, reject) => {
    busboy.once("finish", resolve);
    // It may fail more than once; an error that nobody hears would end the server.
    busboy.on("error", () => reject(notValid()));
  });
  // Where reading fails first, nobody waits for this any more.
  done.catch(() => undefined);
  busboy.on("field", (name: string, value: string) => {
    if (texts.has(name)) fault ??= badField(name, `The field "${name}" is given twice.`);
    // Nothing may throw here: it would reach nobody, and end the server.
    texts.set(name, value);
  });
  busboy.on("file", (name: string, stream: BusboyFileStream) => {
    fault ??= badField(name, `No file is taken here: "${name}" has one. Send a prompt alone.`, "unsupported_parameter");
    // Of a part that is cut off; see above.
    stream.on("error", () => undefined);
    stream.resume();
  });
  busboy.once("fieldsLimit", () => {
    fault ??= new ApiError(400, "invalid_form", `The form has more than ${MOST_FIELDS} fields.`);
  });
  await readChunks(request, (chunk) => {
    try {
      busboy.write(chunk);
    } catch {
      throw notValid();
    }
  });
  busboy.end();
  await done;
  if (fault) throw fault;
  return Object.fromEntries([...texts].map(([name, text]) => [name, fieldOf(name, text)]));
}

function notValid(): ApiError {
  return new ApiError(400, "invalid_form", "The form is not valid.");
}

function openBusboy(type: string): BusboyInstance {
  try {
    const limit = { fields: MOST_FIELDS, fieldNameSize: 100, fieldSize: limits.bodyBytes, headerPairs: 20 };
    return new Busboy({ headers: { "content-type": type }, limits: limit });
  } catch {
    throw new ApiError(400, "invalid_form", "The form has no boundary.");
  }
}

function parseLora(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    throw badField("lora", '"lora" begins as a list, and is not valid JSON.');
  }
}

/** The text, or what it stands for in a field of another kind; where it stands for nothing, the schema says what is wrong. */
function fieldOf(name: string, text: string): unknown {
  if (name === "lora" && text.startsWith("[")) return parseLora(text);
  if (!numberFields.has(name)) return text;
  const value = Number(text);
  return text.trim() === "" || !Number.isFinite(value) ? text : value;
}
