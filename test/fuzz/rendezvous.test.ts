import { setTimeout as sleep } from "node:timers/promises";
import { expect, test, vi } from "vitest";
import { Context, Dealer } from "zeromq";
import { curvePairs, makeJobKey } from "../../src/launcher/nodes/job-key.js";
import { Leader } from "../../src/launcher/nodes/leader.js";
import { LeaderLink } from "../../src/launcher/nodes/leader-link.js";
import { Rendezvous } from "../../src/launcher/rendezvous/server.js";
import { WorkerStore } from "../../src/worker/store.js";
import { malformed } from "./malformed.js";
import { Random } from "./random.js";
import { strangers, type Target } from "./strangers.js";

// Seconds of attacks on each server, and the seed that repeats them: DITRUN_FUZZ_SECONDS=600 for a night's worth.
const seconds = Number(process.env.DITRUN_FUZZ_SECONDS ?? 2);
const seed = Number(process.env.DITRUN_FUZZ_SEED ?? Date.now() % 2 ** 31);

const MOST_SENTENCES = 24;
/** What the attackers themselves take is in it: they share this process. */
const MOST_MEBIBYTES = 400;

/** Attacks until the time is over, one after the other and several at once. */
async function attack(random: Random, attacks: readonly (() => Promise<void>)[]): Promise<void> {
  const end = performance.now() + seconds * 1000;
  while (performance.now() < end) {
    await Promise.all(Array.from({ length: 1 + random.whole(4) }, () => random.of(attacks)()));
  }
}

function strangersAt(target: Target, random: Random): (() => Promise<void>)[] {
  return Object.values(strangers).map((each) => () => each(target, random));
}

/** A connection with a key that is admitted, which says what it likes. */
async function withKey(
  { port, serverKey }: Target,
  { publicKey, secretKey }: { readonly publicKey: string; readonly secretKey: string },
  say: (dealer: Dealer) => Promise<void>,
): Promise<void> {
  const keys = { curveServerKey: serverKey, curvePublicKey: publicKey, curveSecretKey: secretKey };
  const dealer = new Dealer({ context: new Context({ blocky: false }), linger: 0, ...keys });
  dealer.connect(`tcp://127.0.0.1:${port}`);
  await say(dealer);
  await sleep(50);
  dealer.close();
}

/** A sentence of each kind, a few times; not one for each attack. */
function expectFew(sentences: readonly string[]): void {
  expect(sentences.length).toBeLessThan(MOST_SENTENCES);
  for (const sentence of sentences) {
    expect(sentence.length).toBeLessThan(5000);
    // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for.
    expect(sentence).not.toMatch(/[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]/);
  }
}

test(`workers go on while their rendezvous is attacked (seed ${seed})`, async () => {
  const random = new Random(seed);
  const sentences: string[] = [];
  const overdue = vi.fn();
  const failed = vi.fn();
  const settings = { id: "fuzz", device: "cpu", kernels: "none", timeoutSeconds: 300 };
  const welcome = () => new TextEncoder().encode(JSON.stringify(settings));
  const rendezvous = await Rendezvous.open(
    { size: 3, port: 0, timeoutSeconds: 300, welcome },
    {
      emitted: async () => undefined,
      fault: (_, message) => message,
      failed,
      overdue,
      warning: (s) => sentences.push(s),
    },
  );
  const { clientKeys, serverKey, port, address } = rendezvous;
  const place = { size: 3, address, port, serverKey, ...clientKeys, timeoutSeconds: 60 };
  const [one, other] = await Promise.all([0, 1].map((rank) => WorkerStore.join({ ...place, rank })));
  if (!one || !other) throw new Error("They have not joined.");
  let rounds = 0;
  let over = false;
  const honest = async (own: WorkerStore, peer: number) => {
    for (let round = 0; !over; round++) {
      const store = own.storeOf(round);
      await store.put(`${own.rank}/${round}`, new Uint8Array([round % 256]));
      expect((await store.get(`${peer}/${round}`))[0]).toBe(round % 256);
      rounds++;
      await sleep(5);
      // The other may be a round behind.
      if (over) await store.put(`${own.rank}/${round + 1}`, new Uint8Array([(round + 1) % 256]));
    }
  };
  const working = Promise.all([honest(one, 1), honest(other, 0)]);
  const target = { port, serverKey };
  const valid = [
    { type: "join", id: 1, rank: 0, host: "x", pid: 1 },
    { type: "put", id: 1, key: "k" },
    { type: "get", id: 1, key: "k" },
    { type: "barrier", id: 1, name: "b" },
    { type: "step", id: 1, request: 0, step: 0 },
    { type: "fail", id: 1, code: "ERR_INTERNAL", message: "m", exitCode: 1, cause: "own" },
  ];
  const before = process.memoryUsage().rss;
  const keyed = (say: (dealer: Dealer) => Promise<void>) => () => withKey(target, clientKeys, say);
  try {
    await attack(random, [
      ...strangersAt(target, random),
      keyed(async (dealer) => {
        for (let i = 0; i < 200; i++) await dealer.send(malformed(valid, random));
      }),
      // The third rank is an attacker's: what it sends is taken from an admitted peer.
      keyed(async (dealer) => {
        await dealer.send(JSON.stringify({ ...valid[0], rank: 2 }));
        for (let i = 0; i < 300; i++)
          await dealer.send([malformed(valid.slice(1), random), random.bytes(random.whole(200))]);
      }),
      keyed(async (dealer) => {
        for (let i = 0; i < 50; i++) await dealer.send(JSON.stringify({ ...valid[0], id: i, rank: i % 5 }));
      }),
      keyed(async (dealer) => {
        for (let i = 0; i < 2000; i++) await dealer.send(JSON.stringify({ type: "alive", id: 0 }));
      }),
      keyed(async (dealer) => dealer.send(Array.from({ length: 500 }, () => random.bytes(20)))),
      keyed(async (dealer) => dealer.send(Buffer.alloc(2 ** 20))),
    ]);
    const during = rounds;
    await vi.waitFor(() => expect(rounds).toBeGreaterThan(during + 2), { timeout: 20_000 });
  } finally {
    over = true;
  }
  await working;
  expect(overdue).not.toHaveBeenCalled();
  expect(failed).not.toHaveBeenCalled();
  expect((process.memoryUsage().rss - before) / 2 ** 20).toBeLessThan(MOST_MEBIBYTES);
  for (const store of [one, other]) store.close();
  rendezvous.close();
  expectFew(sentences);
});

test(`launchers go on while node 0 is attacked (seed ${seed})`, async () => {
  const random = new Random(seed);
  const sentences: string[] = [];
  const keys = curvePairs(makeJobKey(), "the test");
  const common = { version: "1", nodes: 2, job: "", command: "c" };
  const warn = (sentence: string) => sentences.push(sentence);
  const leader = await Leader.open({
    ...{ ...common, host: "h", address: "127.0.0.1", port: 0, keys, timeoutSeconds: 60, warn },
  });
  const { port } = leader;
  const lost = vi.fn();
  let pulses = 0;
  const link: LeaderLink = new LeaderLink(
    {
      locate: async () => ({ host: "127.0.0.1", port, keys, mayChange: false }),
      ...{ localAddress: undefined, timeoutSeconds: 60 },
    },
    {
      lost,
      message: ({ type }) => {
        if (type === "alive") pulses++;
        if (type === "alive") link.send({ type: "alive" });
      },
    },
  );
  const question = { type: "register", ...common, node: 1, host: "h1", pid: 1, offer: "{}" } as const;
  await link.register(question, undefined);
  link.listen();
  await leader.gather();
  const target = { port, serverKey: keys.leader.publicKey };
  const valid = [
    question,
    { type: "started", launch: 0, pids: [1] },
    { type: "dying", launch: 0, rank: 0, ago: 1 },
    { type: "exited", launch: 0, rank: 0, exit: { kind: "code", code: 0 }, ago: 0, lines: [] },
    { type: "ended", launch: 0, stuck: [] },
    { type: "failed", code: "ERR_INTERNAL", message: "m", exitCode: 1 },
  ];
  const keyed = (say: (dealer: Dealer) => Promise<void>) => () => withKey(target, keys.follower, say);
  await attack(random, [
    ...strangersAt(target, random),
    keyed(async (dealer) => {
      for (let i = 0; i < 200; i++) await dealer.send(malformed(valid, random));
    }),
    keyed(async (dealer) => {
      for (let i = 0; i < 50; i++) await dealer.send(JSON.stringify({ ...question, node: i % 3, pid: i + 1 }));
    }),
    keyed(async (dealer) => {
      for (const message of valid.slice(1)) await dealer.send(JSON.stringify(message));
    }),
    keyed(async (dealer) => dealer.send(Buffer.alloc(2 ** 20))),
  ]);
  const during = pulses;
  await vi.waitFor(() => expect(pulses).toBeGreaterThan(during), { timeout: 20_000 });
  expect(leader.broken.aborted).toBe(false);
  expect(lost).not.toHaveBeenCalled();
  expect(leader.members.map(({ node, host }) => [node, host])).toEqual([[1, "h1"]]);
  await link.close();
  leader.close();
  expectFew(sentences);
});
