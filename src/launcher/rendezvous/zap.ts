import { setTimeout as sleep } from "node:timers/promises";
import { type Context, Reply } from "zeromq";
import { messageOf } from "../../failure.js";
import { messagesOf } from "../../protocol/frames.js";

const MOST_TURNS = 100;
const TURN_MILLISECONDS = 10;

/**
 * Answers libzmq's questions about who may connect (ZeroMQ RFC 27): only CURVE clients with one of these public keys.
 * Without such a handler libzmq admits every key, so it must be bound before the server's socket is.
 * @param publicKeys in Z85.
 * @param onFailure is told when nobody can be admitted any more. @param onStranger gets the address of who has another key.
 */
export async function admitOnly(
  context: Context,
  publicKeys: readonly string[],
  onFailure: (message: string) => void,
  onStranger: (address: string) => void = () => undefined,
): Promise<Reply> {
  const handler = new Reply({ context, linger: 0 });
  await bind(handler);
  const admitted = publicKeys.map(decodeZ85);
  answerRequests(handler, admitted, onStranger).catch((error: unknown) => {
    // Else it was closed between a question and its answer, at the end of the job.
    if (!handler.closed) onFailure(`Nobody can be admitted to the rendezvous any more: ${messageOf(error)}.`);
  });
  return handler;
}

/** The handler before in the same context is closed behind its back, a moment later. */
async function bind(handler: Reply): Promise<void> {
  for (let turn = 0; ; turn++) {
    try {
      return await handler.bind("inproc://zeromq.zap.01");
    } catch (error) {
      if (turn === MOST_TURNS) throw error;
      await sleep(TURN_MILLISECONDS);
    }
  }
}

async function answerRequests(
  handler: Reply,
  admitted: readonly Buffer[],
  onStranger: (address: string) => void,
): Promise<void> {
  for await (const [version, requestId, , address, , mechanism, key] of messagesOf(handler)) {
    const known = mechanism?.toString() === "CURVE" && key !== undefined && admitted.some((one) => one.equals(key));
    if (!known) onStranger(address?.toString() ?? "an unknown address");
    const status = known ? ["200", "OK", "worker", ""] : ["400", "This key is not one of this job's.", "", ""];
    await handler.send([version ?? "1.0", requestId ?? "", ...status]);
  }
}

const Z85 = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#";

/** Decodes Z85 (ZeroMQ RFC 32): five characters for four bytes. */
export function decodeZ85(text: string): Buffer {
  const bytes = Buffer.alloc((text.length / 5) * 4);
  for (let group = 0; group * 5 < text.length; group++) {
    const digits = [...text.slice(group * 5, group * 5 + 5)];
    bytes.writeUInt32BE(
      digits.reduce((value, digit) => value * 85 + Z85.indexOf(digit), 0),
      group * 4,
    );
  }
  return bytes;
}
