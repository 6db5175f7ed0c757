import type { Readable } from "zeromq";

/**
 * The largest frame that the launcher takes: libzmq makes room for a frame as soon as it is announced, also by a stranger who
 * has shown no key yet. What is longer travels in pieces of one message, which only a peer with a key can send.
 */
export const MOST_FRAME_BYTES = 256 * 1024;
/** The largest value that a message to the launcher may carry: more than a frame of video, or the trace of a rank. */
export const MOST_VALUE_BYTES = 256 * 2 ** 20;

/** Cuts a value into frames. */
export function piecesOf(value: Uint8Array): Uint8Array[] {
  const pieces: Uint8Array[] = [];
  for (let at = 0; at < value.length; at += MOST_FRAME_BYTES) pieces.push(value.subarray(at, at + MOST_FRAME_BYTES));
  return pieces;
}

/** Puts a value together again. @throws Error when it is larger than a message may be. */
export function joinPieces(pieces: readonly Uint8Array[]): Uint8Array {
  const [only] = pieces;
  if (only !== undefined && pieces.length === 1) return only;
  const bytes = pieces.reduce((sum, { length }) => sum + length, 0);
  if (bytes > MOST_VALUE_BYTES) throw new Error(`it carries ${bytes} bytes, more than ${MOST_VALUE_BYTES}`);
  return Buffer.concat(pieces, bytes);
}

/**
 * The messages of a socket until it is closed. Iterating the socket itself throws ENOTSOCK where it is closed between two
 * messages that are there already.
 */
export async function* messagesOf<Frames extends Buffer[]>(
  socket: Pick<Readable<Frames>, "receive"> & { readonly closed: boolean },
): AsyncGenerator<Frames, void, undefined> {
  while (!socket.closed) {
    let frames: Frames;
    try {
      frames = await socket.receive();
    } catch (error) {
      if (socket.closed) return;
      throw error;
    }
    yield frames;
  }
}
