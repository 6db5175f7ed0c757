import { open } from "node:fs/promises";
import { pipeline } from "node:stream/promises";
import { ApiError } from "./api-error.js";
import { parseRange } from "./ranges.js";
import type { Exchange } from "./router.js";

/** A reader that takes nothing for so long is gone. At 1 KB a second the kernel asks for more only every minute or so. */
const SLOWEST_MS = 300_000;

interface Content {
  readonly path: string;
  /** As clients that save it are to name it; it is always of the same contents. */
  readonly name: string;
  readonly type: string;
}

/** Sends a file, or the part that the client asks for; for HEAD the headers alone. */
export async function sendFile({ request, response }: Exchange, { path, name, type }: Content): Promise<void> {
  const file = await open(path, "r").catch((error: unknown) => {
    const missing = error instanceof Error && "code" in error && error.code === "ENOENT";
    throw missing ? new ApiError(410, "video_expired", "The file of this video is not there any more.") : error;
  });
  try {
    const { size } = await file.stat();
    const etag = `"${name}"`;
    // A part of other contents than the client has would spoil its file.
    const condition = request.headers["if-range"];
    const header = condition === undefined || condition === etag ? request.headers.range : undefined;
    const range = parseRange(header, size);
    if (range === "none") {
      const headers = { "content-range": `bytes */${size}` };
      throw new ApiError(416, "invalid_range", `The file has ${size} bytes.`, { headers });
    }
    const { start, end } = range === "all" ? { start: 0, end: size - 1 } : range;
    const headers = {
      ...{ "content-type": type, "content-length": end - start + 1, "accept-ranges": "bytes", etag },
      "content-disposition": `inline; filename="${name}"`,
      ...(range === "all" ? {} : { "content-range": `bytes ${start}-${end}/${size}` }),
    };
    response.writeHead(range === "all" ? 200 : 206, headers);
    if (request.method === "HEAD") {
      response.end();
      return;
    }
    response.setTimeout(SLOWEST_MS, () => response.destroy());
    // A client that goes in the middle is no failure.
    await pipeline(file.createReadStream({ start, end, autoClose: false }), response).catch(() => undefined);
  } finally {
    await file.close();
  }
}
