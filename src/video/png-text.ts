import { crc32 } from "node:zlib";

/** The signature, and the first chunk (IHDR). */
const HEAD_BYTES = 8 + 25;

/**
 * A PNG with texts in it, each a `tEXt` chunk behind the header.
 * @param texts keyword and ASCII text of each. Source: PNG specification (third edition), 11.3.3.2.
 */
export function withTexts(png: Uint8Array, texts: Readonly<Record<string, string>>): Buffer {
  const chunks = Object.entries(texts).map(([keyword, text]) => chunk(Buffer.from(`${keyword}\0${text}`, "latin1")));
  return Buffer.concat([png.subarray(0, HEAD_BYTES), ...chunks, png.subarray(HEAD_BYTES)]);
}

function chunk(data: Buffer): Buffer {
  const body = Buffer.concat([Buffer.from("tEXt"), data]);
  const [length, check] = [Buffer.alloc(4), Buffer.alloc(4)];
  length.writeUInt32BE(data.byteLength);
  check.writeUInt32BE(crc32(body));
  return Buffer.concat([length, body, check]);
}

/** JSON with all but ASCII escaped: the same document. */
export function asciiJson(json: string): string {
  return json.replaceAll(/[^ -~]/g, (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, "0")}`);
}
