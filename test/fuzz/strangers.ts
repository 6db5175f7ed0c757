import { connect, type Socket } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { Context, curveKeyPair, Dealer } from "zeromq";
import type { Random } from "./random.js";

/** Where something listens, and its public key. */
export interface Target {
  readonly port: number;
  readonly serverKey: string;
}

/** What somebody without a key may do to a port. Each resolves when its connections are closed. */
export const strangers: Readonly<Record<string, (target: Target, random: Random) => Promise<void>>> = {
  "random bytes": (target, random) => raw(target, [random.bytes(1 + random.whole(4000))]),
  "another protocol": (target) => raw(target, [Buffer.from("GET / HTTP/1.1\r\nHost: x\r\n\r\n")]),
  "nothing at all": (target) => raw(target, []),
  "half a greeting": (target, random) => raw(target, [greeting("CURVE").subarray(0, random.whole(64))]),
  "another mechanism": (target, random) =>
    raw(target, [greeting(random.of(["NULL", "PLAIN", "GSSAPI", "", "X".repeat(20)])), ready, text("hello")]),
  "a handshake of random bytes": (target, random) =>
    raw(target, [greeting("CURVE"), command("HELLO", random.bytes(194))]),
  "a command after nothing": (target, random) =>
    raw(target, [greeting("CURVE"), command(random.of(["INITIATE", "READY", "MESSAGE", "ERROR"]), random.bytes(300))]),
  "a frame of any length": (target, random) =>
    raw(target, [
      greeting("CURVE"),
      frameOf(random.of([2n ** 31n, 2n ** 40n, 2n ** 63n, 0n]), random.of([0, 1, 4, 6, 255])),
    ]),
  "parts without end before any key": (target, random) =>
    raw(target, [greeting("CURVE"), ...Array.from({ length: 50 }, () => part(random.bytes(200)))]),
  "a key of its own": (target) => knock(target, target.serverKey),
  "another key of the server": (target) => knock(target, curveKeyPair().publicKey),
  "many connections at once": async (target) => {
    await Promise.all(Array.from({ length: 50 }, () => raw(target, [greeting("CURVE")])));
  },
};

const MILLISECONDS = 60;

/** ZMTP's greeting (ZeroMQ RFC 23). */
export function greeting(mechanism: string): Buffer {
  const bytes = Buffer.alloc(64);
  bytes.set([0xff, 0, 0, 0, 0, 0, 0, 0, 1, 0x7f, 3, 1]);
  bytes.write(mechanism, 12, 20, "latin1");
  return bytes;
}

function command(name: string, body: Buffer): Buffer {
  const content = Buffer.concat([Buffer.from([name.length]), Buffer.from(name), body]);
  const long = content.length > 255;
  const length = Buffer.alloc(long ? 8 : 1);
  if (long) length.writeBigUInt64BE(BigInt(content.length));
  else length.writeUInt8(content.length);
  return Buffer.concat([Buffer.from([long ? 6 : 4]), length, content]);
}

const ready = command("READY", Buffer.from("\x0bSocket-Type\0\0\0\x06DEALER", "latin1"));
const text = (words: string) => Buffer.concat([Buffer.from([0, words.length]), Buffer.from(words)]);

/** A part of a message, after which another comes. */
const part = (body: Buffer) => Buffer.concat([Buffer.from([1, body.length]), body]);

function frameOf(length: bigint, flags: number): Buffer {
  const bytes = Buffer.alloc(9 + 1000);
  bytes[0] = flags | 2;
  bytes.writeBigUInt64BE(length, 1);
  return bytes;
}

/** Sends pieces on a connection of its own, and closes it a little later. */
export async function raw({ port }: Target, pieces: readonly Buffer[]): Promise<void> {
  const socket = connect(port, "127.0.0.1");
  socket.on("error", () => undefined);
  socket.resume();
  await opened(socket);
  for (const piece of pieces) socket.write(piece);
  await sleep(MILLISECONDS);
  socket.destroy();
}

function opened(socket: Socket): Promise<void> {
  return new Promise((resolve) => socket.once("connect", resolve).once("close", () => resolve()));
}

/** Shows a key that is not on the list, or expects another server. */
async function knock({ port }: Target, curveServerKey: string): Promise<void> {
  const { publicKey, secretKey } = curveKeyPair();
  const keys = { curveServerKey, curvePublicKey: publicKey, curveSecretKey: secretKey };
  const dealer = new Dealer({ context: new Context({ blocky: false }), linger: 0, ...keys });
  dealer.connect(`tcp://127.0.0.1:${port}`);
  await dealer.send(
    JSON.stringify({ type: "fail", id: 0, code: "ERR_INTERNAL", message: "forged", exitCode: 9, cause: "own" }),
  );
  await sleep(MILLISECONDS);
  dealer.close();
}
