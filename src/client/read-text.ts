/**
 * The text of an answer. @param mostBytes it may have. @param mostMs it may take.
 * @throws Error where it has more, takes longer or breaks off.
 */
export async function readText(
  { body }: Response,
  { mostBytes, mostMs }: { readonly mostBytes: number; readonly mostMs: number },
): Promise<string> {
  if (body === null) return "";
  const reader = body.getReader();
  const decoder = new TextDecoder();
  let timer: ReturnType<typeof setTimeout> | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`its answer did not end within ${mostMs / 1000} s`)), mostMs);
  });
  let bytes = 0;
  let text = "";
  try {
    for (;;) {
      const { done, value } = await Promise.race([reader.read(), late]);
      if (done) return text + decoder.decode();
      bytes += value.byteLength;
      if (bytes > mostBytes) throw new Error(`its answer has more than ${mostBytes} bytes`);
      text += decoder.decode(value, { stream: true });
    }
  } finally {
    clearTimeout(timer);
    await reader.cancel().catch(() => undefined);
  }
}
