import type { Colour } from "./colour.js";
import { box, fullBox, uint16, uint32 } from "./mp4-boxes.js";
import type { PictureGroup } from "./picture-group.js";
import { tagSps } from "./sps-colour.js";
import type { VideoFormat, VideoMetadata } from "./video-writer.js";

/** Of a second there are rate × 1000 units; a frame takes 1000. */
const FRAME_UNITS = 1000;
/** No turn and no zoom, in 16.16 and 2.30 bits (ISO/IEC 14496-12, 8.2.2). */
const MATRIX = uint32(0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000);

/**
 * An MP4 file of one H.264 track, its description before its frames, so that it plays while it is loaded.
 * Source: ISO/IEC 14496-12; its boxes are those that ffmpeg writes.
 * @param groups in their order. @returns the parts of the file, one behind the other.
 * @throws RangeError where the groups are not of one video, or there is none.
 */
export function mp4File(
  groups: readonly PictureGroup[],
  format: VideoFormat,
  colour: Colour,
  metadata?: VideoMetadata,
): Uint8Array[] {
  const [first] = groups;
  if (!first) throw new RangeError("There is no frame.");
  for (const { sps, pps } of groups) {
    const same = Buffer.compare(sps, first.sps) === 0 && Buffer.compare(pps, first.pps) === 0;
    if (!same) throw new RangeError("The groups of pictures have different parameter sets.");
  }
  const samples = groups.flatMap((group) => group.samples);
  const bytes = samples.reduce((sum, sample) => sum + sample.byteLength, 0);
  const type = box("ftyp", Buffer.from("isom"), uint32(512), Buffer.from("isomiso2avc1mp41"));
  const data = dataHeader(bytes);
  // The description is as long whatever place it names.
  const describe = (place: number) => movie({ groups, samples, format, colour, metadata }, first, place);
  const place = type.byteLength + describe(0).byteLength + data.byteLength;
  return [type, describe(place), data, ...samples];
}

interface Track {
  readonly groups: readonly PictureGroup[];
  readonly samples: readonly Uint8Array[];
  readonly format: VideoFormat;
  readonly colour: Colour;
  readonly metadata: VideoMetadata | undefined;
}

/** The header of the box of the frames: with a size of 64 bits where 32 are too few. */
function dataHeader(bytes: number): Buffer {
  const size = 16 + bytes;
  if (size < 2 ** 32) return Buffer.concat([uint32(8 + bytes), Buffer.from("mdat")]);
  return Buffer.concat([uint32(1), Buffer.from("mdat"), uint32(Math.floor(size / 2 ** 32), size % 2 ** 32)]);
}

function movie(track: Track, first: PictureGroup, place: number): Buffer {
  const { samples, format, metadata } = track;
  const { width, height, fps } = format;
  const time = uint32(Math.round(fps * FRAME_UNITS), samples.length * FRAME_UNITS);
  const noTimes = uint32(0, 0);
  const header = [uint32(0x10000), uint16(0x100), Buffer.alloc(10), MATRIX, Buffer.alloc(24), uint32(2)];
  const place16 = [Buffer.alloc(16), MATRIX, uint32(width * 0x10000, height * 0x10000)];
  const media = box(
    "minf",
    fullBox("vmhd", 1, Buffer.alloc(8)),
    box("dinf", fullBox("dref", 0, uint32(1), fullBox("url ", 1))),
    sampleTable(track, first, place),
  );
  return box(
    "moov",
    fullBox("mvhd", 0, noTimes, time, ...header),
    box(
      "trak",
      // Enabled, and part of the movie; track 1.
      fullBox("tkhd", 3, noTimes, uint32(1, 0), time.subarray(4), ...place16),
      box(
        "mdia",
        // The language is "und".
        fullBox("mdhd", 0, noTimes, time, uint16(0x55c4, 0)),
        handler("vide", "", "VideoHandler"),
        media,
      ),
    ),
    ...(metadata ? [tags(metadata)] : []),
  );
}

function handler(type: string, vendor: string, name: string): Buffer {
  const text = Buffer.from(`${vendor.padEnd(4, "\0")}${"\0".repeat(8)}${name}\0`, "latin1");
  return fullBox("hdlr", 0, uint32(0), Buffer.from(type), text);
}

function sampleTable({ groups, samples, format, colour }: Track, first: PictureGroup, place: number): Buffer {
  let frame = 1;
  const starts = groups.map((group) => {
    frame += group.samples.length;
    return frame - group.samples.length;
  });
  return box(
    "stbl",
    fullBox("stsd", 0, uint32(1), sampleEntry(first, format, colour)),
    fullBox("stts", 0, uint32(1, samples.length, FRAME_UNITS)),
    fullBox("stss", 0, uint32(starts.length, ...starts)),
    // All frames are one chunk.
    fullBox("stsc", 0, uint32(1, 1, samples.length, 1)),
    fullBox("stsz", 0, uint32(0, samples.length, ...samples.map(({ byteLength }) => byteLength))),
    fullBox("stco", 0, uint32(1, place)),
  );
}

/** ISO/IEC 14496-12, 12.1.3, and 14496-15, 5.3.3.1: lengths before NAL units have four bytes. */
function sampleEntry({ sps, pps }: PictureGroup, { width, height }: VideoFormat, colour: Colour): Buffer {
  const tagged = tagSps(sps, colour);
  const configuration = box(
    "avcC",
    Uint8Array.of(1, ...tagged.subarray(1, 4), 0xff, 0xe1),
    ...[uint16(tagged.byteLength), tagged],
    ...[Uint8Array.of(1), uint16(pps.byteLength), pps],
  );
  return box(
    "avc1",
    ...[Buffer.alloc(6), uint16(1), Buffer.alloc(16), uint16(width, height)],
    // 72 dots an inch both ways, one frame in a sample, no name of a compressor, 24 bits of colour.
    ...[uint32(0x480000, 0x480000, 0), uint16(1), Buffer.alloc(32), uint16(24, 0xffff)],
    ...[configuration, colourBox(colour)],
  );
}

/** ISO/IEC 14496-12, 12.1.5: on-screen colours, the last bit says that the range is limited. */
function colourBox({ primaries, transfer, matrix }: Colour): Buffer {
  return box("colr", Buffer.from("nclx"), Uint8Array.of(0, primaries, 0, transfer, 0, matrix, 0));
}

/** The tags of iTunes, which ffmpeg writes too. */
function tags({ title, comment, software }: VideoMetadata): Buffer {
  const text = (type: string, value: string) => box(type, box("data", uint32(1, 0), Buffer.from(value, "utf8")));
  const list = box("ilst", text("©nam", title), text("©too", software), text("©cmt", comment));
  return box("udta", fullBox("meta", 0, handler("mdir", "appl", ""), list));
}
