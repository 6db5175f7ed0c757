import { type Context, Router } from "zeromq";
import { MOST_FRAME_BYTES } from "../../protocol/frames.js";

/**
 * Messages of one peer that may wait to be read; then its connection waits. Who asks, waits for the answer, so more than a few
 * are a flood, of frames that may be large.
 */
const MOST_WAITING_MESSAGES = 16;
/** Answers that a peer may leave unread; those after them are dropped. */
const MOST_UNREAD_ANSWERS = 4096;
/** What CURVE adds to a frame, and more. */
const FRAME_OVERHEAD = 1024;
/** How long a connection may take to show a key, on a machine with far too much to do. */
const HANDSHAKE_MILLISECONDS = 15_000;
/** Connections that the kernel keeps until they are looked at; the others ask again a second later. */
const MOST_BEFORE_THE_DOOR = 256;

/**
 * A socket for many peers, who must show a key in time: frames, messages that wait and answers that nobody reads are bounded.
 * @param secretKey in Z85. @param address where it will listen. @param linger milliseconds for what is still to be sent at the end.
 */
export function serverSocket(context: Context, secretKey: string, address: string, linger: number): Router {
  return new Router({
    ...{ context, curveServer: true, curveSecretKey: secretKey, ipv6: address.includes(":"), linger },
    ...{ sendHighWaterMark: MOST_UNREAD_ANSWERS, receiveHighWaterMark: MOST_WAITING_MESSAGES },
    ...{ maxMessageSize: MOST_FRAME_BYTES + FRAME_OVERHEAD, handshakeInterval: HANDSHAKE_MILLISECONDS },
    backlog: MOST_BEFORE_THE_DOOR,
  });
}
