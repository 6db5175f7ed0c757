import { connect, createServer } from "node:net";
import { execa } from "execa";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { Context, curveKeyPair, Dealer } from "zeromq";
import { DitrunError, PeerFailure } from "../../src/failure.js";
import { Rendezvous } from "../../src/launcher/rendezvous/server.js";
import { MOST_FRAME_BYTES } from "../../src/protocol/frames.js";
import { isStopped } from "../../src/protocol/process-stat.js";
import { rendezvousVariables } from "../../src/protocol/variables.js";
import type { WorkerEnvironment } from "../../src/worker/environment.js";
import { WorkerStore } from "../../src/worker/store.js";
import { fixtureWorker, Pids } from "./launch.js";
import { profileJob } from "./profile-job.js";

vi.mock(import("../../src/protocol/process-stat.js"), async (original) => ({
  ...(await original()),
  isStopped: vi.fn(() => false),
}));

let rendezvous: Rendezvous;
let heard: string[] = [];
/** Of the one request that each rendezvous is given. */
let outcome: ReturnType<Rendezvous["hand"]>;
const stores: WorkerStore[] = [];

/** Opens the rendezvous of two ranks. The deadline is far away but where a test is about it: a machine may be slow. */
async function open(timeoutSeconds: number): Promise<void> {
  heard = [];
  const { task, ...settings } = profileJob(timeoutSeconds);
  const encode = (value: unknown) => new TextEncoder().encode(JSON.stringify(value));
  const options = { size: 2, port: 0, timeoutSeconds, welcome: () => encode(settings) };
  rendezvous = await Rendezvous.open(options, {
    fault: (rank, message) => `rank ${rank}: ${message}`,
    emitted: async (rank, name, value) => {
      heard.push(`${name} of ${rank}: ${new TextDecoder().decode(value)}`);
    },
    failed: (rank, { code, message, exitCode }, cause) =>
      heard.push(`rank ${rank} failed (${code}, ${exitCode}, ${cause}): ${message}`),
    overdue: (message) => heard.push(message),
    warning: (message) => heard.push(`warning: ${message}`),
  });
  outcome = rendezvous.hand(encode(task));
}

/** What the ranks have reported, as text. */
async function reported(): Promise<string[]> {
  const ended = await outcome;
  return ended.kind === "results"
    ? ended.results.map((value) => new TextDecoder().decode(value))
    : [ended.stop.message];
}
beforeEach(() => open(60));
afterEach(() => {
  for (const store of stores.splice(0)) store.close();
  rendezvous.close();
});

function environment(rank: number, changes: Partial<WorkerEnvironment> = {}): WorkerEnvironment {
  const { address, port, serverKey } = rendezvous;
  return { rank, size: 2, address, port, serverKey, ...rendezvous.clientKeys, timeoutSeconds: 60, ...changes };
}

/** A rank that has joined and been given the request. */
async function join(rank: number, changes: Partial<WorkerEnvironment> = {}) {
  const worker = await WorkerStore.join(environment(rank, changes));
  stores.push(worker);
  const request = await worker.next();
  return {
    ...worker.storeOf(0),
    ...{ request, id: worker.settings.id },
    result: (value: unknown) => worker.result(0, value),
    fail: (error: DitrunError, cause: "own" | "peer") => worker.fail(error, cause),
  };
}

/** A port at which nobody listens. */
async function closedPort(): Promise<number> {
  const server = createServer();
  const port = await new Promise<number>((resolve) => {
    server.listen(0, "127.0.0.1", () => {
      const address = server.address();
      resolve(typeof address === "object" && address ? address.port : 0);
    });
  });
  await new Promise((resolve) => server.close(resolve));
  return port;
}

describe("who may come in", () => {
  test("a key that is not the job's is refused, by the handshake and for the worker", async () => {
    const context = new Context({ blocky: false });
    const { publicKey, secretKey } = curveKeyPair();
    const client = new Dealer({
      context,
      curveServerKey: rendezvous.serverKey,
      curvePublicKey: publicKey,
      curveSecretKey: secretKey,
      linger: 0,
    });
    const refused = new Promise((resolve) =>
      client.events.on("handshake:error:auth", ({ error }) => resolve(error.status)),
    );
    client.connect(`tcp://127.0.0.1:${rendezvous.port}`);
    expect(await refused).toBe(400);
    client.close();
    await expect(join(0, { publicKey, secretKey, timeoutSeconds: 1 })).rejects.toThrow(
      "did not answer the request to join of rank 0",
    );
    // The control: the job's own key is let in on the same socket.
    expect((await join(0)).id).toBe("test");
  });

  test("a client without CURVE is refused", async () => {
    const context = new Context({ blocky: false });
    const client = new Dealer({ context, linger: 0 });
    const shaken: string[] = [];
    client.events.on("handshake", () => shaken.push("handshake"));
    const dropped = new Promise<void>((resolve) => {
      client.events.on("handshake:error:protocol", () => resolve());
      client.events.on("disconnect", () => resolve());
    });
    client.connect(`tcp://127.0.0.1:${rendezvous.port}`);
    await client.send(JSON.stringify({ type: "join", id: 0, rank: 0, host: "h", pid: 1 }));
    await dropped;
    client.close();
    expect(shaken).toEqual([]);
    // Rank 0 is still free.
    expect((await join(0)).rank).toBe(0);
    expect(heard).toEqual([]);
  });

  test("a frame that is too large is cut off when it is announced, before any key is shown", async () => {
    const greeting = Buffer.alloc(64);
    greeting.set([0xff, 0, 0, 0, 0, 0, 0, 0, 1, 0x7f, 3, 1]);
    greeting.write("CURVE", 12);
    /** A command of so many bytes (ZMTP 3.1), of which only the length is sent. */
    const announce = (bytes: number) => {
      const header = Buffer.from([6, 0, 0, 0, 0, 0, 0, 0, 0]);
      header.writeBigUInt64BE(BigInt(bytes), 1);
      const socket = connect(rendezvous.port, "127.0.0.1");
      socket.on("error", () => undefined);
      socket.on("data", () => undefined);
      socket.write(Buffer.concat([greeting, header]));
      const closed = new Promise((resolve) => socket.once("close", () => resolve("closed")));
      return { socket, closed };
    };
    const large = announce(3e9);
    const fits = announce(MOST_FRAME_BYTES);
    expect(await large.closed).toBe("closed");
    expect(fits.socket.closed).toBe(false);
    fits.socket.destroy();
    expect((await join(0)).rank).toBe(0);
  });

  test("a key that is none is refused before anything is sent", async () => {
    await expect(join(0, { secretKey: " ".repeat(40) })).rejects.toThrow(
      /DITRUN_SECRET_KEY cannot be used \(.+\): each/,
    );
    expect(heard).toEqual([]);
  });

  test("a rank can be taken only once, and must exist", async () => {
    await join(1);
    await expect(join(1)).rejects.toThrow("Rank 1 has joined already");
    await expect(join(2, { size: 3 })).rejects.toThrow("Rank 2 does not exist in a job of 2 workers.");
  });

  test("nobody answers on another port", async () => {
    const port = await closedPort();
    await expect(join(0, { port, timeoutSeconds: 0.5 })).rejects.toThrow(
      `The launcher at 127.0.0.1:${port} did not answer the request to join of rank 0 within 0.5 s`,
    );
  });
});

describe("the store", () => {
  test("a get waits for the put; bytes arrive as they are; a later put replaces", async () => {
    const [zero, one] = [await join(0), await join(1)];
    const bytes = Uint8Array.from({ length: 100_000 }, (_, i) => (i * 7) % 256);
    const waiting = one.get("key");
    await zero.put("key", bytes);
    expect(Buffer.from(await waiting).equals(bytes)).toBe(true);
    await one.put("key", new Uint8Array());
    expect(await zero.get("key")).toHaveLength(0);
  });

  test("what is emitted arrives in order, as it is, and is answered", async () => {
    const zero = await join(0);
    const encode = (text: string) => new TextEncoder().encode(text);
    await Promise.all([zero.emit("frame", encode("first")), zero.emit("frame", encode("second"))]);
    await zero.emit("progress", encode("third"));
    expect(heard).toEqual(["frame of 0: first", "frame of 0: second", "progress of 0: third"]);
  });

  test("values and results that are larger than a frame arrive whole", async () => {
    const [zero, one] = [await join(0), await join(1)];
    const bytes = Uint8Array.from({ length: 5 * MOST_FRAME_BYTES + 3 }, (_, i) => (i * 7) % 253);
    await zero.put("key", bytes);
    expect(Buffer.from(await one.get("key")).equals(bytes)).toBe(true);
    const text = "é".repeat(MOST_FRAME_BYTES);
    await Promise.all([zero.result({ text }), one.result({ text: "" })]);
    expect(await reported()).toEqual([JSON.stringify({ text }), '{"text":""}']);
  });

  test("a name that is larger than a frame is refused here, not by a silence", async () => {
    const zero = await join(0);
    await expect(zero.get("k".repeat(MOST_FRAME_BYTES))).rejects.toThrow(/has \d+ bytes; a launcher takes \d+ at most/);
  });

  test("a barrier opens for all, and again under the same name", async () => {
    const [zero, one] = [await join(0), await join(1)];
    for (let round = 0; round < 3; round++) {
      const order: string[] = [];
      const first = zero.barrier("b").then(() => order.push("rank 0 passed"));
      order.push("rank 1 comes");
      await Promise.all([first, one.barrier("b")]);
      expect(order).toEqual(["rank 1 comes", "rank 0 passed"]);
    }
  });

  test("all ranks get the largest number that one has brought", async () => {
    const [zero, one] = [await join(0), await join(1)];
    expect(await Promise.all([zero.largest("n", -7.5), one.largest("n", -8)])).toEqual([-7.5, -7.5]);
  });

  test("ranks that do not come to a barrier are named, and a rank comes once", async () => {
    rendezvous.close();
    await open(2);
    const [zero, one] = [await join(0), await join(1)];
    await Promise.all([zero.barrier("b"), one.barrier("b")]);
    const alone = zero.barrier("b");
    await expect(zero.barrier("b")).rejects.toThrow('Rank 0 waits at barrier "b" already.');
    await expect(alone).rejects.toThrow(PeerFailure);
    await expect(alone).rejects.toThrow('Rank 1 did not come to barrier "b" within 2 s; rank 1 passed barrier "b" ');
  });

  test("another rank's failure ends every wait, present and future", async () => {
    const [zero, one] = [await join(0), await join(1)];
    const waits = [zero.get("never"), zero.barrier("never")].map((wait) =>
      expect(wait).rejects.toThrow("rank 1 is lost"),
    );
    expect(await one.fail(new DitrunError("ERR_DEVICE_MEMORY", "out of memory"), "own")).toBe(true);
    expect(heard).toEqual(["rank 1 failed (ERR_DEVICE_MEMORY, 3, own): out of memory"]);
    await rendezvous.abort("rank 1 is lost");
    await Promise.all(waits);
    await expect(zero.put("late", new Uint8Array())).rejects.toThrow(DitrunError);
  });

  test("ranks that only compute for longer than the deadline are told of, with what they did last", async () => {
    rendezvous.close();
    await open(4);
    const [zero, one] = [await join(0), await join(1)];
    await Promise.all([zero.barrier("start"), one.barrier("start")]);
    await vi.waitFor(() => expect(heard).toHaveLength(1), { timeout: 20_000, interval: 50 });
    expect(heard[0]).toMatch(
      /^warning: For more than 4 s no rank has asked for or handed over anything; ranks 0 and 1 passed barrier "start" \d+ s ago\.$/,
    );
    // They are left alone: who computes may take as long as it takes.
    await zero.put("key", new Uint8Array());
    expect(heard).toHaveLength(1);
  });

  test("time in which the launcher was stopped does not count: joins that came meanwhile are read", async () => {
    rendezvous.close();
    await open(1);
    const joining = [join(0), join(1)];
    // This thread stands still as if by Ctrl-Z, but ZeroMQ's goes on.
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 2500);
    await Promise.all(joining);
    expect(heard).toEqual([]);
  });

  test("nor does a worker blame a launcher that is stopped", async () => {
    const halted = vi.mocked(isStopped).mockReturnValue(true);
    const asked = join(0, { port: await closedPort(), timeoutSeconds: 0.3 });
    let refused = false;
    const refusal = expect(asked).rejects.toThrow("did not answer the request to join");
    asked.catch(() => {
      refused = true;
    });
    await new Promise((resolve) => setTimeout(resolve, 1500));
    expect(refused).toBe(false);
    halted.mockReturnValue(false);
    await refusal;
  });

  test("missing ranks are named", async () => {
    rendezvous.close();
    await open(2);
    const zero = await join(0);
    await expect(zero.get("absent")).rejects.toThrow('No rank has put "absent" within 2 s; rank 1 has not joined.');
    expect(heard).toEqual(["Rank 1 did not join within 2 s."]);
  });
});

test("junk is told of a few times, and closing in the middle of a flood and of handshakes throws nothing", async () => {
  const context = new Context({ blocky: false });
  const dealer = (keys: { publicKey: string; secretKey: string }) => {
    const socket = new Dealer({
      context,
      curveServerKey: rendezvous.serverKey,
      curvePublicKey: keys.publicKey,
      curveSecretKey: keys.secretKey,
      linger: 0,
      reconnectInterval: 1,
    });
    socket.connect(`tcp://127.0.0.1:${rendezvous.port}`);
    return socket;
  };
  const insider = dealer(rendezvous.clientKeys);
  const strangers = Array.from({ length: 10 }, () => dealer(curveKeyPair()));
  let flooding = true;
  const flood = (async () => {
    for (let i = 0; flooding; i++) {
      await insider.send(i % 2 === 0 ? "not json" : '{"type":"alive","id":0}');
      if (i % 64 === 0) await new Promise((resolve) => setImmediate(resolve));
    }
  })();
  await vi.waitFor(() => expect(heard).toHaveLength(6), { timeout: 20_000 });
  rendezvous.close();
  // Vitest fails on a rejection that nobody handles.
  await new Promise((resolve) => setTimeout(resolve, 100));
  expect(heard).toHaveLength(7);
  expect(heard.at(-1)).toMatch(/^warning: \d+ more messages were not valid\.$/);
  flooding = false;
  insider.close();
  for (const stranger of strangers) stranger.close();
  await flood.catch(() => undefined);
});

test("workers that are started by hand with the same environment do their work", async () => {
  const pids = new Pids();
  const workers = [0, 1].map((rank) =>
    execa("node", [fixtureWorker], {
      stdin: "ignore",
      reject: false,
      env: {
        RANK: String(rank),
        LOCAL_RANK: String(rank),
        WORLD_SIZE: "2",
        LOCAL_WORLD_SIZE: "2",
        MASTER_ADDR: rendezvous.address,
        MASTER_PORT: String(rendezvous.port),
        [rendezvousVariables.serverKey]: rendezvous.serverKey,
        [rendezvousVariables.publicKey]: rendezvous.clientKeys.publicKey,
        [rendezvousVariables.secretKey]: rendezvous.clientKeys.secretKey,
        [rendezvousVariables.timeoutSeconds]: "20",
        WORKER_PIDS: pids.folder,
        WORKER_BEHAVIOUR: "{}",
        WORKER_TASKS: "",
      },
    }),
  );
  expect(await reported()).toEqual([
    expect.stringContaining('{"rank":0,"greeting":"from 1"'),
    expect.stringContaining('{"rank":1,"greeting":"from 0"'),
  ]);
  rendezvous.end();
  for (const { exitCode, stderr } of await Promise.all(workers)) expect([exitCode, stderr]).toEqual([0, ""]);
  await pids.expectGone(2);
});
