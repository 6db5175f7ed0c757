import { setMaxListeners } from "node:events";
import { readFileSync } from "node:fs";
import { connect } from "node:net";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { execa } from "execa";
import { expect, test, vi } from "vitest";
import { Context, Dealer } from "zeromq";
import { z } from "zod";
import { MOST_FRAME_BYTES } from "../../src/protocol/frames.js";
import { WorkerStore } from "../../src/worker/store.js";
import { greeting } from "./strangers.js";

const MOST_GROWTH_MEBIBYTES = 64;

const saidSchema = z.object({ kind: z.string(), message: z.unknown() });
const openSchema = z.object({
  ...{ port: z.number(), address: z.string(), serverKey: z.string(), publicKey: z.string(), secretKey: z.string() },
});
type Place = z.infer<typeof openSchema>;

/** MiB of a process, of proc_pid_status(5): `VmRSS` now, `VmHWM` at its most. */
function mebibytes(pid: number, name: "VmRSS" | "VmHWM"): number {
  const status = readFileSync(`/proc/${pid}/status`, "utf8");
  return Number(new RegExp(`^${name}:\\s+(\\d+) kB`, "m").exec(status)?.[1]) / 1024;
}

function dealerOf({ port, serverKey, publicKey, secretKey }: Place, receiveHighWaterMark: number): Dealer {
  const keys = { curveServerKey: serverKey, curvePublicKey: publicKey, curveSecretKey: secretKey };
  const queues = { sendHighWaterMark: 4, receiveHighWaterMark, linger: 0 };
  const dealer = new Dealer({ context: new Context({ blocky: false }), ...keys, ...queues });
  dealer.connect(`tcp://127.0.0.1:${port}`);
  return dealer;
}

/** Connections that a stranger opens and never closes; a part of them begins the handshake and goes on a byte at a time. */
async function holdConnections({ port }: Place, count: number, signal: AbortSignal): Promise<void> {
  setMaxListeners(2 * count + 4, signal);
  const hold = async () => {
    const socket = connect({ port, host: "127.0.0.1", signal }).on("error", () => undefined);
    for (const byte of greeting("CURVE")) {
      if (signal.aborted) return;
      socket.write(Buffer.from([byte]));
      await sleep(200);
    }
  };
  await Promise.all(Array.from({ length: count }, hold));
}

/** What an admitted peer sends as fast as it is taken. */
async function flood(place: Place, frames: readonly (Buffer | string)[], count: number): Promise<void> {
  // It reads no answer.
  const dealer = dealerOf(place, 1);
  for (let i = 0; i < count; i++) await dealer.send([...frames]);
  await sleep(200);
  dealer.close();
}

test("floods of strangers and of admitted peers leave the server's memory bounded, and the workers go on", async () => {
  const entry = fileURLToPath(new URL("rendezvous-process.js", import.meta.url));
  const server = execa(process.execPath, [entry], { stdin: "pipe", buffer: false, reject: false });
  const heard: { kind: string; message: unknown }[] = [];
  createInterface({ input: server.stdout }).on("line", (line) => heard.push(saidSchema.parse(JSON.parse(line))));
  await vi.waitFor(() => expect(heard).toHaveLength(1), { timeout: 30_000 });
  const place = openSchema.parse(heard[0]?.message);
  const pid = server.pid ?? 0;
  const ending = new AbortController();
  try {
    const [one, other] = await Promise.all(
      [0, 1].map((rank) => WorkerStore.join({ ...place, size: 3, rank, timeoutSeconds: 60 })),
    );
    if (!one || !other) throw new Error("They have not joined.");
    const round = async (name: string) => {
      const stores = [one.storeOf(0), other.storeOf(0)];
      await Promise.all(stores.map((store) => store.put(`${name}/${store.rank}`, new Uint8Array(1000))));
      const got = await Promise.all(stores.map((store) => store.get(`${name}/${1 - store.rank}`)));
      expect(got.map(({ length }) => length)).toEqual([1000, 1000]);
    };
    await round("before");
    const before = mebibytes(pid, "VmRSS");
    const held = holdConnections(place, 600, ending.signal);
    const join = JSON.stringify({ type: "join", id: 0, rank: 2, host: "x", pid: 1 });
    const floods = [
      flood(place, [join], 500),
      // Frames of the largest size that are no messages, and many parts of one message.
      flood(place, [Buffer.alloc(MOST_FRAME_BYTES, "x")], 600),
      flood(place, [JSON.stringify({ type: "alive", id: 0 }), ...Array<Buffer>(500).fill(Buffer.alloc(100))], 50),
      flood(place, [JSON.stringify({ type: "barrier", id: 0, name: "b" })], 4000),
    ];
    for (let i = 0; i < 5; i++) await round(`during ${i}`);
    await Promise.all(floods);
    await round("after");
    expect(mebibytes(pid, "VmHWM") - before).toBeLessThan(MOST_GROWTH_MEBIBYTES);
    ending.abort();
    await held;
    for (const store of [one, other]) store.close();
    const kinds = heard.slice(1).map(({ kind }) => kind);
    expect(new Set(kinds)).toEqual(new Set(["warning"]));
    expect(kinds.length).toBeLessThan(24);
    expect(heard.map(({ message }) => message)).toContainEqual(
      expect.stringMatching(/^More than \d+ connections are open at port \d+: others wait until some have ended\.$/),
    );
  } finally {
    ending.abort();
    server.stdin.end();
    await server;
  }
});
