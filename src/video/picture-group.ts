import { bodyAt, boxesIn } from "./mp4-boxes.js";

/** Frames of a group of pictures: the first can be decoded alone, each other one with those before it in the group. */
export const groupFrames = 12;

/** One encoded group. */
export interface PictureGroup {
  /** Sequence and picture parameter set, NAL units without start codes. */
  readonly sps: Uint8Array;
  readonly pps: Uint8Array;
  /** Of each frame its NAL units, each behind its length in 32 bits. */
  readonly samples: readonly Uint8Array[];
}

const IDR = 5;
const NON_IDR = 1;

/**
 * The group in a file of h264-mp4-encoder, which has one track whose samples lie one behind the other.
 * @throws RangeError for a file that is not so, or where another frame than the first can be decoded alone.
 */
export function readGroup(bytes: Uint8Array): PictureGroup {
  const file = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const table = bodyAt(file, "moov", "trak", "mdia", "minf", "stbl");
  // Behind version, flags and the number of entries, and behind the fields of a visual sample entry (ISO/IEC 14496-12, 12.1.3).
  const configuration = bodyAt(bodyAt(table, "stsd").subarray(8), "avc1").subarray(78);
  const { sps, pps } = parameterSets(bodyAt(configuration, "avcC"));
  const sizes = sampleSizes(bodyAt(table, "stsz"));
  const data = boxesIn(file).find(({ type }) => type === "mdat")?.body ?? Buffer.alloc(0);
  const total = sizes.reduce((sum, size) => sum + size, 0);
  if (total !== data.byteLength) throw new RangeError(`${data.byteLength} bytes of media are not ${total} of samples.`);
  let at = 0;
  const samples = sizes.map((size, index) => {
    const sample = Buffer.from(data.subarray(at, at + size));
    at += size;
    checkSlice(sample, index === 0 ? IDR : NON_IDR);
    return sample;
  });
  return { sps: Buffer.from(sps), pps: Buffer.from(pps), samples };
}

/** AVCDecoderConfigurationRecord with one set of each kind (ISO/IEC 14496-15, 5.3.3.1). */
function parameterSets(record: Buffer): { sps: Buffer; pps: Buffer } {
  const end = 8 + record.readUInt16BE(6);
  const [sets, pictureSets] = [(record[5] ?? 0) & 31, record[end]];
  if (sets !== 1 || pictureSets !== 1) throw new RangeError(`There are ${sets} and ${pictureSets} parameter sets.`);
  const from = end + 3;
  return { sps: record.subarray(8, end), pps: record.subarray(from, from + record.readUInt16BE(end + 1)) };
}

function sampleSizes(body: Buffer): number[] {
  const [common, count] = [body.readUInt32BE(4), body.readUInt32BE(8)];
  return Array.from({ length: count }, (_, index) => common || body.readUInt32BE(12 + 4 * index));
}

/** A frame must be one slice, of that type of NAL unit. */
function checkSlice(sample: Buffer, type: number): void {
  const units = 4 + sample.readUInt32BE(0) === sample.byteLength;
  const found = (sample[4] ?? 0) & 31;
  if (!units || found !== type) throw new RangeError(`A frame has type ${found}, not ${type}, or several slices.`);
}

/**
 * Numbers the group's first picture. Two such pictures in a row must have different numbers (ITU-T H.264, 7.4.3, idr_pic_id), and
 * each encoder starts with 1. Even groups keep it; odd ones get 2, whose Exp-Golomb code is as long.
 * @throws RangeError for a slice header other than that of h264-mp4-encoder.
 */
export function numberGroup({ samples }: PictureGroup, index: number): void {
  const slice = samples[0]?.subarray(4) ?? new Uint8Array();
  // NAL unit of type 5; first_mb_in_slice 0, slice_type 2, pic_parameter_set_id 0, 3 bits of frame_num 0; then 2 bits of it, 010.
  const [unit = 0, start = 0, rest = 0] = slice;
  if (unit !== 0x65 || start !== 0b1_011_1_000 || rest >> 3 !== 0b00_010)
    throw new RangeError(`A group begins with ${[unit, start, rest].join(", ")}.`);
  if (index % 2 === 1) slice[2] = rest | 0b1000;
}
