/** A box of an MP4 file (ISO/IEC 14496-12, 4.2). */
export interface Box {
  readonly type: string;
  readonly body: Buffer;
}

/** The boxes of one level. @throws RangeError where one does not fit. */
export function boxesIn(bytes: Buffer): Box[] {
  const found: Box[] = [];
  for (let at = 0; at < bytes.byteLength; ) {
    const size = bytes.readUInt32BE(at);
    if (size < 8 || at + size > bytes.byteLength) throw new RangeError(`A box of ${size} bytes does not fit.`);
    found.push({ type: bytes.toString("latin1", at + 4, at + 8), body: bytes.subarray(at + 8, at + size) });
    at += size;
  }
  return found;
}

/** The body of the box at the end of a path of types. @throws RangeError where there is none. */
export function bodyAt(bytes: Buffer, ...path: readonly string[]): Buffer {
  return path.reduce((within, type) => {
    const box = boxesIn(within).find((each) => each.type === type);
    if (!box) throw new RangeError(`There is no ${type} box.`);
    return box.body;
  }, bytes);
}

/** A box of parts. @param type four Latin-1 characters. */
export function box(type: string, ...parts: readonly Uint8Array[]): Buffer {
  const body = Buffer.concat(parts);
  return Buffer.concat([uint32(8 + body.byteLength), Buffer.from(type, "latin1"), body]);
}

/** The same with a version, 0, and flags before its parts. */
export function fullBox(type: string, flags: number, ...parts: readonly Uint8Array[]): Buffer {
  return box(type, uint32(flags), ...parts);
}

/** Big-endian numbers of 32 bits. */
export function uint32(...values: readonly number[]): Buffer {
  const bytes = Buffer.alloc(4 * values.length);
  for (const [index, value] of values.entries()) bytes.writeUInt32BE(value, 4 * index);
  return bytes;
}

/** Big-endian numbers of 16 bits. */
export function uint16(...values: readonly number[]): Buffer {
  const bytes = Buffer.alloc(2 * values.length);
  for (const [index, value] of values.entries()) bytes.writeUInt16BE(value, 2 * index);
  return bytes;
}
