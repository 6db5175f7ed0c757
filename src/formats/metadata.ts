import { closeSync, openSync, readSync } from "node:fs";
import { z } from "zod";

/** Headers of LoRAs and of models alone in a file are far below this. */
const MOST_BYTES = 16 * 2 ** 20;

const headerSchema = z.looseObject({ __metadata__: z.record(z.string(), z.string()).optional() });

/**
 * What a safetensors file says of itself; nothing for what is none, cannot be read or has a larger header: whoever opens it for its tensors
 * says so. At once, since it is a read or two.
 */
export function readMetadata(path: string): ReadonlyMap<string, string> {
  if (!path.endsWith(".safetensors")) return new Map();
  try {
    const file = openSync(path, "r");
    try {
      const length = Buffer.alloc(8);
      if (readSync(file, length, 0, 8, 0) < 8) return new Map();
      const bytes = Number(length.readBigUInt64LE());
      if (bytes > MOST_BYTES) return new Map();
      const header = Buffer.alloc(bytes);
      readSync(file, header, 0, bytes, 8);
      const document = headerSchema.safeParse(JSON.parse(header.toString("utf8"))).data;
      return new Map(Object.entries(document?.__metadata__ ?? {}));
    } finally {
      closeSync(file);
    }
  } catch {
    return new Map();
  }
}
