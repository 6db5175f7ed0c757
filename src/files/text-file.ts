import { once } from "node:events";
import { closeSync, constants, fstatSync, openSync, readFileSync, readSync } from "node:fs";
import { Socket } from "node:net";

/** Far more than any text that people write. */
const MOST_BYTES = 16 * 2 ** 20;

/**
 * Reads a text from a file or a pipe (`<(…)` of a shell). Ends also where a pipe has no writer, and where a device has no end.
 * @param mostBytes a longer one is refused. @throws the file system's own error, or an Error whose message says what the file is, to end a sentence with.
 */
export async function readTextFile(path: string, mostBytes = MOST_BYTES): Promise<string> {
  // Otherwise a pipe without a writer would be waited for, deaf to all signals.
  const fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
  let first: Buffer | undefined;
  let text: string | undefined;
  try {
    const stat = fstatSync(fd);
    if (stat.isDirectory()) throw new Error("it is a directory");
    if (stat.isFile() && stat.size > mostBytes) throw tooLong(mostBytes);
    if (stat.isFile()) text = readFileSync(fd, "utf8");
    else if (!stat.isFIFO()) throw new Error("it is neither a file nor a pipe");
    else {
      first = readNow(fd);
      if (first?.length === 0) text = "";
    }
  } catch (error) {
    closeSync(fd);
    throw error;
  }
  if (text === undefined) return readPipe(fd, first ?? Buffer.alloc(0), mostBytes);
  closeSync(fd);
  return text;
}

/** What comes after `first`; closes the pipe. */
async function readPipe(fd: number, first: Buffer, mostBytes: number): Promise<string> {
  const chunks = [first];
  let bytes = first.length;
  const pipe = new Socket({ fd, readable: true, writable: false });
  pipe.on("data", (chunk: Buffer) => {
    chunks.push(chunk);
    bytes += chunk.length;
    if (bytes > mostBytes) pipe.destroy(tooLong(mostBytes));
  });
  await once(pipe, "end");
  pipe.destroy();
  return Buffer.concat(chunks).toString("utf8");
}

/** What a pipe holds now: nothing where it has no writer, undefined where it has one that has not written yet. A poll would wait for both. */
function readNow(fd: number): Buffer | undefined {
  const buffer = Buffer.alloc(65_536);
  try {
    return buffer.subarray(0, readSync(fd, buffer));
  } catch (error) {
    if (error instanceof Error && "code" in error && error.code === "EAGAIN") return undefined;
    throw error;
  }
}

function tooLong(mostBytes: number): Error {
  const most = mostBytes < 2 ** 20 ? `${mostBytes / 2 ** 10} KiB` : `${mostBytes / 2 ** 20} MiB`;
  return new Error(`it is longer than ${most}, which no such document is`);
}
