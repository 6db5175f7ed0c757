import { strange } from "./answers.js";

/** An event of a stream. */
export interface StreamEvent {
  readonly name: string;
  readonly data: string;
}

/** The server says at least a comment every 15 s. */
const QUIET_MS = 45_000;
/** Characters of an event; a preview or a video with the longest prompts has some hundred thousand. */
const MOST_CHARACTERS = 2 ** 22;

/**
 * Reads server-sent events (HTML Living Standard, section 9.2) until the stream ends. @throws Error where it breaks off, stays
 * quiet or has an event without end. Whoever stops reading ends the connection.
 */
export async function* readEvents(body: ReadableStream<Uint8Array>): AsyncGenerator<StreamEvent, void> {
  const reader = body.getReader();
  const decoder = new TextDecoder();
  // Of an event that has not ended.
  let rest: string[] = [];
  let length = 0;
  try {
    for (;;) {
      const { done, value } = await withinQuiet(reader.read());
      if (done) return;
      const text = decoder.decode(value, { stream: true });
      rest.push(text);
      length += text.length;
      if (length > MOST_CHARACTERS) throw strange("events");
      if (!text.includes("\n")) continue;
      const blocks = rest.join("").replaceAll("\r\n", "\n").split("\n\n");
      rest = [blocks.pop() ?? ""];
      length = rest[0]?.length ?? 0;
      for (const block of blocks) {
        const event = eventOf(block);
        if (event) yield event;
      }
    }
  } finally {
    await reader.cancel().catch(() => undefined);
  }
}

/** @returns undefined for comments. */
function eventOf(block: string): StreamEvent | undefined {
  let name = "message";
  const data: string[] = [];
  for (const line of block.split("\n")) {
    const [, field, value = ""] = /^([^:]+):? ?(.*)$/.exec(line) ?? [];
    if (field === "event") name = value;
    if (field === "data") data.push(value);
  }
  return data.length === 0 ? undefined : { name, data: data.join("\n") };
}

async function withinQuiet<T>(read: Promise<T>): Promise<T> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const quiet = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`nothing came for ${QUIET_MS / 1000} s`)), QUIET_MS);
  });
  try {
    return await Promise.race([read, quiet]);
  } finally {
    clearTimeout(timer);
  }
}
