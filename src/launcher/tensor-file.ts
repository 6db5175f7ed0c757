import { type FileHandle, open } from "node:fs/promises";
import { z } from "zod";
import { DitrunError, messageOf } from "../protocol/failure.js";

const entrySchema = z.object({
  dtype: z.string(),
  shape: z.array(z.int().min(0)),
  data_offsets: z.tuple([z.int().min(0), z.int().min(0)]),
});
const LARGEST_HEADER = 100_000_000;

/**
 * Reads one float32 tensor of a safetensors file: eight bytes of header length, a JSON header, then the data.
 * @throws DitrunError naming the file, what was expected and what was found.
 */
export async function readFloat32Tensor(path: string, name: string): Promise<{ shape: number[]; data: Float32Array }> {
  let file: FileHandle;
  try {
    file = await open(path);
  } catch (error) {
    throw new DitrunError(`${path} could not be opened: ${messageOf(error)}.`, undefined, { cause: error });
  }
  try {
    const { size } = await file.stat();
    const headerBytes = size < 8 ? 0 : Number((await readExactly(file, path, 0, 8)).readBigUInt64LE());
    if (headerBytes < 2 || headerBytes > LARGEST_HEADER || headerBytes + 8 > size) {
      throw new DitrunError(
        `${path} is not a safetensors file, or was cut off: its ${size} bytes cannot hold its header.`,
      );
    }
    const entry = findEntry(path, name, (await readExactly(file, path, 8, headerBytes)).toString("utf8"));
    const [start, end] = entry.data_offsets;
    const elements = entry.shape.reduce((product, length) => product * length, 1);
    if (end - start !== elements * 4) {
      throw new DitrunError(
        `${path}: tensor ${name} of shape [${entry.shape.join(", ")}] takes ${elements * 4} bytes, but its header says ${end - start}.`,
      );
    }
    if (8 + headerBytes + end > size) {
      throw new DitrunError(
        `${path} was cut off: tensor ${name} ends at byte ${8 + headerBytes + end}, the file at ${size}.`,
      );
    }
    const bytes = await readExactly(file, path, 8 + headerBytes + start, end - start);
    const data = new Float32Array(elements);
    for (let i = 0; i < elements; i++) data[i] = bytes.readFloatLE(i * 4);
    return { shape: entry.shape, data };
  } finally {
    await file.close();
  }
}

function findEntry(path: string, name: string, header: string): z.infer<typeof entrySchema> {
  let entries: Record<string, unknown>;
  try {
    entries = z.record(z.string(), z.unknown()).parse(JSON.parse(header));
  } catch (error) {
    throw new DitrunError(`${path} is not a safetensors file: its header is not a JSON object.`, undefined, {
      cause: error,
    });
  }
  const entry = entrySchema.safeParse(entries[name]);
  if (!entry.success) {
    const names = Object.keys(entries).filter((key) => key !== "__metadata__");
    throw new DitrunError(`${path} holds no tensor ${name}, only ${names.join(", ") || "none at all"}.`);
  }
  if (entry.data.dtype !== "F32") {
    throw new DitrunError(`${path}: tensor ${name} is ${entry.data.dtype}; it must be F32.`);
  }
  return entry.data;
}

async function readExactly(file: FileHandle, path: string, position: number, length: number): Promise<Buffer> {
  const buffer = Buffer.alloc(length);
  let done = 0;
  while (done < length) {
    const { bytesRead } = await file.read(buffer, done, length - done, position + done);
    if (bytesRead === 0) throw new DitrunError(`${path} was cut off: it ends at byte ${position + done}.`);
    done += bytesRead;
  }
  return buffer;
}
