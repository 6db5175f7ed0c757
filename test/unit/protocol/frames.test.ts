import { expect, test } from "vitest";
import { joinPieces, MOST_FRAME_BYTES, MOST_VALUE_BYTES, messagesOf, piecesOf } from "../../../src/protocol/frames.js";

test.each([0, 1, MOST_FRAME_BYTES, MOST_FRAME_BYTES + 1, 3 * MOST_FRAME_BYTES + 7])(
  "%d bytes are the same in pieces",
  (length) => {
    const value = Uint8Array.from({ length }, (_, i) => (i * 31) % 251);
    const pieces = piecesOf(value);
    expect(pieces.length).toBe(Math.ceil(length / MOST_FRAME_BYTES));
    for (const piece of pieces) expect(piece.length).toBeLessThanOrEqual(MOST_FRAME_BYTES);
    expect(Buffer.from(joinPieces(pieces)).equals(Buffer.from(value))).toBe(true);
  },
);

test("a value that is too large is refused before it is put together", () => {
  const piece = new Uint8Array(MOST_FRAME_BYTES);
  const pieces = Array.from({ length: MOST_VALUE_BYTES / MOST_FRAME_BYTES + 1 }, () => piece);
  expect(() => joinPieces(pieces)).toThrow(`it carries ${MOST_VALUE_BYTES + MOST_FRAME_BYTES} bytes, more than`);
});

/** A socket that is closed while a message waits to be read: receiving then fails with ENOTSOCK. */
class Closing {
  closed = false;
  #left: Buffer[] = [Buffer.from("a"), Buffer.from("b")];
  async receive(): Promise<Buffer[]> {
    if (this.closed) throw new Error("Socket operation on non-socket");
    const next = this.#left.shift();
    if (!next) throw new Error("broken");
    return [next];
  }
}

test("messages end where the socket is closed between two of them", async () => {
  const socket = new Closing();
  const seen: string[] = [];
  for await (const [frame] of messagesOf(socket)) {
    seen.push(String(frame));
    socket.closed = true;
  }
  expect(seen).toEqual(["a"]);
});

test("another failure is thrown", async () => {
  const all = async () => {
    for await (const _ of messagesOf(new Closing()));
  };
  await expect(all()).rejects.toThrow("broken");
});
