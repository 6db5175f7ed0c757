import type { FileHandle } from "node:fs/promises";

/** Below the kernel's limit of 2 GiB at once. */
const MOST_BYTES = 2 ** 28;

/** Writes all bytes at a place of a file, however many. @throws the file system's own error. */
export async function writeAll(file: FileHandle, bytes: Uint8Array, position: number): Promise<void> {
  for (let done = 0; done < bytes.byteLength; ) {
    const length = Math.min(MOST_BYTES, bytes.byteLength - done);
    done += (await file.write(bytes, done, length, position + done)).bytesWritten;
  }
}
