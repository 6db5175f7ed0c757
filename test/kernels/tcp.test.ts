// The CPU module's communicator as somebody else on the network sees it: a client and a server of a few lines, with Node's own HMAC.
import { createHmac, randomBytes } from "node:crypto";
import { once } from "node:events";
import { connect, createServer, type Socket } from "node:net";
import { networkInterfaces } from "node:os";
import koffi from "koffi";
import { afterEach, describe, expect, it, vi } from "vitest";
import { builtKernels } from "../../src/paths.js";
import { prototypes } from "../../src/worker/runtime/abi.js";
import { check, lastError, made, raw, streamSynchronizeAsync } from "./module.js";

const init = koffi.load(builtKernels("cpu")).func(prototypes.ncclInit);

/** Joins on another thread. @returns the communicator. */
function join(id: Buffer, rank: number, size: number): Promise<number> {
  const result = [0];
  return new Promise((resolve, reject) => {
    init.async(id, rank, size, result, (error: Error | null, status: number) => {
      if (error) return reject(error);
      if (status !== 0) return reject(new Error(lastError()));
      resolve(Number(result[0]));
    });
  });
}

/** An id: magic, an address of 24 bytes (family, port from byte 2, bytes from 8), a secret of 32. */
function makeId(): { id: Buffer; host: string; port: number; secret: Buffer } {
  const id = Buffer.alloc(128);
  check(raw.ncclUniqueId(id));
  return { id, ...doorOf(id) };
}

function doorOf(id: Buffer) {
  const bytes = id.subarray(16, 32);
  const host = id[8] === 4 ? bytes.subarray(0, 4).join(".") : `::${bytes.readUInt16BE(14).toString(16)}`;
  return { host, port: id.readUInt16LE(10), secret: id.subarray(32, 64) };
}

/** Reads exactly so many bytes. @throws Error when the other side closes before. */
async function read(socket: Socket, bytes: number): Promise<Buffer> {
  for (;;) {
    const chunk: Buffer | null = socket.read(bytes);
    if (chunk?.length === bytes) return chunk;
    if (chunk || socket.readableEnded) throw new Error("closed");
    await Promise.race([once(socket, "readable"), once(socket, "end")]);
  }
}

async function visit({ host, port }: { host: string; port: number }): Promise<Socket> {
  const socket = connect({ host, port });
  socket.on("error", () => undefined);
  await once(socket, "connect");
  return socket;
}

const MAGIC = Buffer.from("ditrunT1");
function hello(rank: number, size: number): Buffer {
  const numbers = Buffer.alloc(8);
  numbers.writeUInt32LE(rank);
  numbers.writeUInt32LE(size, 4);
  return Buffer.concat([MAGIC, numbers, randomBytes(32)]);
}
const proof = (secret: Buffer, ...parts: (Buffer | string)[]) => {
  const hmac = createHmac("sha256", secret);
  for (const part of parts) hmac.update(part);
  return hmac.digest();
};

/** Introduces itself as a rank. @returns what the listener proved to know. */
async function introduce(socket: Socket, secret: Buffer, rank: number, size: number): Promise<boolean> {
  const greeting = hello(rank, size);
  socket.write(greeting);
  const challenge = await read(socket, 64);
  const [nonce, theirs] = [challenge.subarray(0, 32), challenge.subarray(32)];
  const address = Buffer.alloc(24);
  socket.write(Buffer.concat([address, proof(secret, "connect", greeting, nonce, address)]));
  return theirs.equals(proof(secret, "listen", greeting, nonce));
}

const message = (call: number, data: Buffer) => {
  const header = Buffer.alloc(16);
  header.write("DTR1", "latin1");
  header.writeUInt32LE(call, 4);
  header.writeBigUInt64LE(BigInt(data.length), 8);
  return Buffer.concat([header, data]);
};
const GATHER = 3;

afterEach(() => vi.unstubAllEnvs());
const memory = (bytes: number) => made((result) => raw.malloc(bytes, 0, result));
const newStream = () => made((result) => raw.streamCreate(0, result));

/** Rank 0 of two in the module, rank 1 in this test. */
async function pair() {
  const { id, ...door } = makeId();
  const joined = join(id, 0, 2);
  const socket = await visit(door);
  expect(await introduce(socket, door.secret, 1, 2)).toBe(true);
  // Where both ranks listen.
  await read(socket, 48);
  return { communicator: await joined, socket };
}

async function bytesAt(address: number, count: number, stream: number): Promise<number[]> {
  const to = Buffer.alloc(count);
  check(raw.download(to, address, count, stream));
  return [...to];
}

describe("a communicator of the CPU module", () => {
  it("admits who proves to know the secret by HMAC-SHA-256, and moves bytes both ways", async () => {
    const { communicator, socket } = await pair();
    const [x, out, stream] = [memory(8), memory(16), newStream()];
    check(raw.upload(x, Buffer.from([1, 2, 3, 4, 5, 6, 7, 8]), 8, stream));
    check(raw.ncclAllGather(communicator, out, x, 2, 0, stream));
    expect(await read(socket, 24)).toEqual(message(GATHER, Buffer.from([1, 2, 3, 4, 5, 6, 7, 8])));
    // In pieces.
    const theirs = message(GATHER, Buffer.from([9, 10, 11, 12, 13, 14, 15, 16]));
    for (const end of [5, 17, 24]) {
      socket.write(theirs.subarray(end === 5 ? 0 : end === 17 ? 5 : 17, end));
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
    expect(await streamSynchronizeAsync(stream)).toBe(0);
    expect(await bytesAt(out, 16, stream)).toEqual(Array.from({ length: 16 }, (_, i) => i + 1));
    check(raw.ncclDestroy(communicator));
    expect(raw.ncclAllGather(communicator, out, x, 2, 0, stream)).toBe(1);
    check(raw.streamDestroy(stream));
    socket.destroy();
  });

  it("drops strangers without a word, and waits on for its ranks", async () => {
    const { id, ...door } = makeId();
    const joined = join(id, 0, 2);
    const silent = await visit(door);
    const noise = await visit(door);
    noise.write(randomBytes(200));
    await expect(read(noise, 1)).rejects.toThrow(/closed|ECONNRESET/);
    const wrong = await visit(door);
    // It learns nothing that it could use: the listener's proof holds for these two numbers only.
    expect(await introduce(wrong, randomBytes(32), 1, 2)).toBe(false);
    await expect(read(wrong, 1)).rejects.toThrow(/closed|ECONNRESET/);
    const rank = await visit(door);
    expect(await introduce(rank, door.secret, 1, 2)).toBe(true);
    check(raw.ncclDestroy(await joined));
    for (const socket of [silent, noise, wrong, rank]) socket.destroy();
  });

  it("leaves a listener that has not the secret", async () => {
    const server = createServer((socket) => {
      socket.on("error", () => undefined);
      void read(socket, 48).then(() => socket.write(randomBytes(64)));
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    const address = server.address();
    if (address === null || typeof address === "string") throw new Error("The server has no port.");
    const { id } = makeId();
    id.writeUInt16LE(address.port, 10);
    await expect(join(id, 1, 2)).rejects.toThrow(
      `Rank 0 of a group of 2 (127.0.0.1:${address.port}) did not prove that it belongs to this group`,
    );
    server.close();
  });

  it("names the ranks that do not come in time", async () => {
    vi.stubEnv("DITRUN_TIMEOUT", "0.2");
    const { id, host, port, secret } = makeId();
    const joined = join(id, 0, 4);
    joined.catch(() => undefined);
    const socket = await visit({ host, port });
    await introduce(socket, secret, 2, 4);
    await expect(joined).rejects.toThrow(`these ranks did not come in time: 1, 3. Rank 0 waits at 127.0.0.1:${port}.`);
    socket.destroy();
  });

  it("refuses a message of another length, and is of no use from then on", async () => {
    const { communicator, socket } = await pair();
    const [x, out, stream] = [memory(8), memory(16), newStream()];
    check(raw.ncclAllGather(communicator, out, x, 2, 0, stream));
    socket.write(message(GATHER, Buffer.alloc(12)));
    expect(await streamSynchronizeAsync(stream)).toBe(1);
    expect(lastError()).toMatch(/^Rank 0 expects 8 bytes of rank 1 in call 3, but it sends 12 bytes in call 3/);
    expect(raw.ncclCheck(communicator)).toBe(1);
    check(raw.ncclDestroy(communicator));
    check(raw.streamDestroy(stream));
    socket.destroy();
  });

  it("refuses two operations at a time, and a stream that is destroyed waits for no rank", async () => {
    const { communicator, socket } = await pair();
    const [x, out, one, two] = [memory(8), memory(16), newStream(), newStream()];
    check(raw.ncclAllGather(communicator, out, x, 2, 0, one));
    await read(socket, 24);
    check(raw.ncclAllGather(communicator, out, x, 2, 0, two));
    expect(await streamSynchronizeAsync(two)).toBe(1);
    expect(lastError()).toMatch(/^Two operations of one communicator run at the same time/);
    expect(raw.ncclDestroy(communicator)).toBe(1);
    expect(lastError()).toMatch(/is still under way/);
    check(raw.streamDestroy(one));
    check(raw.ncclDestroy(communicator));
    check(raw.streamDestroy(two));
    socket.destroy();
  });

  const addresses = Object.values(networkInterfaces()).flatMap((each) => each ?? []);
  it.skipIf(!addresses.some(({ address }) => address === "::1"))("joins over IPv6", async () => {
    vi.stubEnv("NCCL_SOCKET_FAMILY", "AF_INET6");
    const { id, host } = makeId();
    expect(host).toBe("::1");
    const communicators = await Promise.all([join(id, 0, 3), join(id, 1, 3), join(id, 2, 3)]);
    for (const each of communicators) check(raw.ncclDestroy(each));
  });

  it("listens where NCCL_SOCKET_IFNAME says, by NCCL's rules", () => {
    for (const rule of ["=lo", "lo", "l,=x", "eth9,lo", "^eth,docker", "^=eth0"]) {
      vi.stubEnv("NCCL_SOCKET_IFNAME", rule);
      expect(makeId().port).toBeGreaterThan(0);
    }
    for (const rule of ["=l", "eth9x", "^lo,e,w,d,v,b,t"]) {
      vi.stubEnv("NCCL_SOCKET_IFNAME", rule);
      expect(raw.ncclUniqueId(Buffer.alloc(128))).toBe(1);
      expect(lastError()).toContain(`NCCL_SOCKET_IFNAME is ${rule}, but no interface of such a name is up`);
      expect(lastError()).toMatch(/this host has .*\blo\b/);
    }
  });
});
