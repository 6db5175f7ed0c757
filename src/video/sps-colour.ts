import type { Colour } from "./colour.js";

/** Reads and writes bits, the first of a byte being its highest. */
class Bits {
  readonly #bits: number[] = [];
  #at = 0;

  static of(bytes: Iterable<number>): Bits {
    const bits = new Bits();
    for (const byte of bytes) bits.write(byte, 8);
    return bits;
  }

  write(value: number, count: number): void {
    for (let bit = count - 1; bit >= 0; bit--) this.#bits.push((value >> bit) & 1);
  }

  read(): number {
    const bit = this.#bits[this.#at++];
    if (bit === undefined) throw new RangeError("The sequence parameter set ends too early.");
    return bit;
  }

  skip(count: number): void {
    for (let bit = 0; bit < count; bit++) this.read();
  }

  /** ue(v): an Exp-Golomb code. */
  readExp(): number {
    let zeros = 0;
    while (this.read() === 0) zeros++;
    let value = 1;
    for (let bit = 0; bit < zeros; bit++) value = 2 * value + this.read();
    return value - 1;
  }

  /** Drops the last bit that was read, and all after it. */
  cut(): void {
    this.#bits.length = this.#at - 1;
  }

  /** rbsp_trailing_bits, and the bytes. */
  end(): number[] {
    this.write(1, 1);
    while (this.#bits.length % 8 !== 0) this.write(0, 1);
    const bytes: number[] = [];
    for (let at = 0; at < this.#bits.length; at += 8)
      bytes.push(this.#bits.slice(at, at + 8).reduce((byte, bit) => 2 * byte + bit, 0));
    return bytes;
  }
}

const BASELINE = 66;

/**
 * A sequence parameter set of the baseline profile with video usability information that tells the colours.
 * @param sps a NAL unit without a start code. @throws RangeError for one of another profile, or that has such information.
 * Source: ITU-T H.264, 7.3.2.1.1 and E.1.1.
 */
export function tagSps(sps: Uint8Array, { primaries, transfer, matrix }: Colour): Uint8Array {
  if (sps[1] !== BASELINE) throw new RangeError(`The profile is ${sps[1]}, not baseline.`);
  const bits = Bits.of(withoutEmulation(sps));
  bits.skip(8 + 24);
  bits.readExp(); // seq_parameter_set_id
  bits.readExp(); // log2_max_frame_num_minus4
  const order = bits.readExp(); // pic_order_cnt_type
  if (order === 0) bits.readExp(); // log2_max_pic_order_cnt_lsb_minus4
  if (order === 1) throw new RangeError("The picture order is given by a cycle.");
  bits.readExp(); // max_num_ref_frames
  bits.skip(1); // gaps_in_frame_num_value_allowed_flag
  bits.readExp(); // pic_width_in_mbs_minus1
  bits.readExp(); // pic_height_in_map_units_minus1
  if (bits.read() === 0) bits.skip(1); // frame_mbs_only_flag, mb_adaptive_frame_field_flag
  bits.skip(1); // direct_8x8_inference_flag
  if (bits.read() === 1) for (let side = 0; side < 4; side++) bits.readExp(); // frame_cropping
  if (bits.read() === 1) throw new RangeError("There is video usability information already.");
  bits.cut();
  bits.write(1, 1); // vui_parameters_present_flag
  bits.write(0, 2); // aspect_ratio_info_present_flag, overscan_info_present_flag
  bits.write(1, 1); // video_signal_type_present_flag
  bits.write(5, 3); // video_format: unspecified
  bits.write(0, 1); // video_full_range_flag
  bits.write(1, 1); // colour_description_present_flag
  for (const code of [primaries, transfer, matrix]) bits.write(code, 8);
  bits.write(1, 1); // chroma_loc_info_present_flag
  for (let field = 0; field < 2; field++) bits.write(0b010, 3); // chroma_sample_loc_type: 1, between four pixels
  bits.write(0, 5); // no timing, no HRD parameters (2), no pic_struct, no bitstream restriction
  return withEmulation(bits.end());
}

/** 00 00 03 stands for 00 00 in a NAL unit. */
function withoutEmulation(unit: Uint8Array): number[] {
  return [...unit].filter((byte, at) => !(byte === 3 && at >= 2 && unit[at - 1] === 0 && unit[at - 2] === 0));
}

function withEmulation(bytes: readonly number[]): Uint8Array {
  const out: number[] = [];
  for (const byte of bytes) {
    if (byte <= 3 && out.at(-1) === 0 && out.at(-2) === 0) out.push(3);
    out.push(byte);
  }
  return Uint8Array.from(out);
}
