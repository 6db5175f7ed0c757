import type { Colour } from "./colour.js";
import { tagSps } from "./sps-colour.js";

/** Bytes of a box between its header and the boxes in it, of those that lie around a sample entry. */
const containers: Readonly<Record<string, number>> = {
  ...{ moov: 0, trak: 0, mdia: 0, minf: 0, stbl: 0 },
  // version, flags and the number of entries; the fields of a visual sample entry (ISO/IEC 14496-12, 12.1.3).
  ...{ stsd: 8, avc1: 78 },
};

/**
 * An MP4 file with one H.264 track, with the colours told in its sample entry (`colr`) and in its sequence parameter set.
 * @throws RangeError for a file whose media data come behind their description: their places would change.
 */
export function tagMp4(file: Uint8Array, colour: Colour): Uint8Array {
  const bytes = Buffer.from(file.buffer, file.byteOffset, file.byteLength);
  const types = boxes(bytes).map(({ type }) => type);
  if (types.indexOf("moov") < types.indexOf("mdat")) throw new RangeError("The file begins with its description.");
  return rewrite(bytes, colour);
}

function boxes(bytes: Buffer): { type: string; body: Buffer }[] {
  const found: { type: string; body: Buffer }[] = [];
  for (let at = 0; at < bytes.byteLength; ) {
    const size = bytes.readUInt32BE(at);
    if (size < 8 || at + size > bytes.byteLength) throw new RangeError(`A box of ${size} bytes does not fit.`);
    found.push({ type: bytes.toString("latin1", at + 4, at + 8), body: bytes.subarray(at + 8, at + size) });
    at += size;
  }
  return found;
}

function box(type: string, ...parts: Uint8Array[]): Buffer {
  const body = Buffer.concat(parts);
  const header = Buffer.alloc(8);
  header.writeUInt32BE(8 + body.byteLength);
  header.write(type, 4, "latin1");
  return Buffer.concat([header, body]);
}

function rewrite(bytes: Buffer, colour: Colour): Buffer {
  return Buffer.concat(
    boxes(bytes).map(({ type, body }) => {
      if (type === "avcC") return box(type, tagConfiguration(body, colour));
      const fields = containers[type];
      if (fields === undefined) return box(type, body);
      const inner = rewrite(body.subarray(fields), colour);
      return box(type, body.subarray(0, fields), inner, ...(type === "avc1" ? [colourBox(colour)] : []));
    }),
  );
}

/** ISO/IEC 14496-12, 12.1.5: on-screen colours, the last bit says that the range is limited. */
function colourBox({ primaries, transfer, matrix }: Colour): Buffer {
  return box("colr", Buffer.from("nclx"), Uint8Array.of(0, primaries, 0, transfer, 0, matrix, 0));
}

/** AVCDecoderConfigurationRecord with one sequence parameter set (ISO/IEC 14496-15, 5.3.3.1). */
function tagConfiguration(body: Buffer, colour: Colour): Buffer {
  const sets = (body[5] ?? 0) & 0x1f;
  if (sets !== 1) throw new RangeError(`There are ${sets} sequence parameter sets.`);
  const end = 8 + body.readUInt16BE(6);
  const sps = tagSps(body.subarray(8, end), colour);
  return Buffer.concat([
    body.subarray(0, 6),
    Uint8Array.of(sps.length >> 8, sps.length & 255),
    sps,
    body.subarray(end),
  ]);
}
