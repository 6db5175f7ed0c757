export interface ServerEvent {
  readonly name: string;
  readonly data: string;
}

/** The events of a stream of server-sent events, each once it is whole. */
export async function* eventsOf(body: ReadableStream<Uint8Array>): AsyncGenerator<ServerEvent> {
  const reader = body.getReader();
  const decoder = new TextDecoder();
  let text = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      text += decoder.decode(value, { stream: true });
      const parts = text.split("\n\n");
      text = parts.pop() ?? "";
      for (const part of parts) {
        const event = eventOf(part);
        if (event) yield event;
      }
    }
  } finally {
    await reader.cancel().catch(() => undefined);
  }
}

/** undefined for a comment. */
export function eventOf(part: string): ServerEvent | undefined {
  const fields = new Map(part.split("\n").map((line) => [line.split(":")[0] ?? "", line.replace(/^[^:]*: ?/, "")]));
  const [name, data] = [fields.get("event"), fields.get("data")];
  return name === undefined || data === undefined ? undefined : { name, data };
}
