import { afterEach, beforeEach, expect, test, vi } from "vitest";
import type { Answers } from "../../../src/launcher/rendezvous/answers.js";
import { Barriers } from "../../../src/launcher/rendezvous/barriers.js";
import { Complaints } from "../../../src/launcher/rendezvous/complaints.js";
import { KeyValues } from "../../../src/launcher/rendezvous/key-values.js";
import { Requests } from "../../../src/launcher/rendezvous/requests.js";
import { Whereabouts } from "../../../src/launcher/whereabouts.js";
import { AwakeClock } from "../../../src/protocol/awake-clock.js";

let said: string[] = [];
const answers: Answers = {
  done: ({ rank }) => said.push(`${rank}: done`),
  value: ({ rank }, value) => said.push(`${rank}: ${value.length} bytes`),
  largest: ({ rank }, value) => said.push(`${rank}: largest ${value}`),
  refuse: ({ rank }, message, cause) => said.push(`${rank}: refused (${cause}): ${message}`),
  request: ({ rank }, request) => said.push(`${rank}: request ${request}`),
  end: ({ rank }) => said.push(`${rank}: end`),
  go: ({ rank }, preview) => said.push(`${rank}: go${preview ? ", shown" : ""}`),
  stop: ({ rank }, message) => said.push(`${rank}: stop: ${message}`),
};
const clock = new AwakeClock();
beforeEach(() => {
  vi.useFakeTimers();
  said = [];
});
afterEach(() => {
  clock.close();
  vi.useRealTimers();
});

test("ranks that wait at a barrier are not blamed for those that do not come", () => {
  const barriers = new Barriers(3, 10, clock, new Whereabouts(), answers, (message) => said.push(`job: ${message}`));
  barriers.arrive({ rank: 0, id: 1 }, "b");
  barriers.arrive({ rank: 0, id: 2 }, "b");
  vi.advanceTimersByTime(11_000);
  const missing = 'Ranks 1 and 2 did not come to barrier "b" within 10 s; ranks 1 and 2 have not joined.';
  expect(said).toEqual([
    '0: refused (own): Rank 0 waits at barrier "b" already.',
    `job: ${missing}`,
    `0: refused (peer): ${missing}`,
  ]);
});

test("ranks that bring numbers get the largest, and each is answered once", () => {
  const barriers = new Barriers(3, 10, clock, new Whereabouts(), answers, (message) => said.push(`job: ${message}`));
  for (const round of [0, 1]) {
    said = [];
    for (const [rank, value] of [-5, -2 + round, -3].entries()) barriers.arrive({ rank, id: round }, "n", value);
    expect(said).toEqual([0, 1, 2].map((rank) => `${rank}: largest ${-2 + round}`));
  }
});

test("open barriers, keys and bytes are bounded", () => {
  const barriers = new Barriers(2, 10, clock, new Whereabouts(), answers, () => undefined);
  for (let i = 0; i < 1025; i++) barriers.arrive({ rank: 0, id: i }, `b${i}`);
  expect(said).toEqual(["0: refused (own): More than 1024 barriers are open already."]);

  const values = new KeyValues(2, 10, clock, new Whereabouts(), answers);
  said = [];
  for (let i = 0; i < 65_536; i++) values.put({ rank: 0, id: i }, `k${i}`, new Uint8Array());
  expect(said.filter((line) => line !== "0: done")).toEqual([]);
  said = [];
  values.put({ rank: 0, id: 0 }, "one more", new Uint8Array());
  values.put({ rank: 0, id: 0 }, "k0", new Uint8Array(1));
  // A view of so many bytes, which takes no memory.
  values.put({ rank: 0, id: 0 }, "k1", new Uint8Array(512 * 2 ** 20));
  expect(said).toEqual([
    expect.stringMatching(/^0: refused \(own\): There is no room for "one more"/),
    "0: done",
    expect.stringMatching(/^0: refused \(own\): There is no room for "k1"/),
  ]);
});

test("nobody waits any more for a key that was put", () => {
  const values = new KeyValues(2, 10, clock, new Whereabouts(), answers);
  values.get({ rank: 1, id: 0 }, "key");
  expect(values.awaited).toBe(true);
  values.put({ rank: 0, id: 0 }, "key", new Uint8Array(3));
  expect([values.awaited, vi.getTimerCount()]).toEqual([false, 0]);
  expect(said).toEqual(["0: done", "1: 3 bytes"]);
});

test("a value that is put again takes the room of the one before", () => {
  const values = new KeyValues(2, 10, clock, new Whereabouts(), answers);
  for (let i = 0; i < 3; i++) values.put({ rank: 0, id: i }, "key", new Uint8Array(200 * 2 ** 20));
  expect(said).toEqual(["0: done", "0: done", "0: done"]);
});

test("complaints of one kind are told of a few times, and then counted", () => {
  const complaints = new Complaints("messages were not valid", (message) => said.push(message));
  for (let i = 0; i < 1000; i++) complaints.add(`Number ${i}.`);
  complaints.close();
  expect(said).toHaveLength(7);
  expect(said.slice(4)).toEqual([
    "Number 4.",
    "More of this kind are only counted.",
    "995 more messages were not valid.",
  ]);
});

test("whether a step is shown is asked once, and is the same for every rank", () => {
  const requests = new Requests(2, new Whereabouts(), answers, () => undefined);
  let asked = 0;
  void requests.hand(new Uint8Array(), () => ++asked === 2);
  for (const rank of [0, 1]) requests.next({ rank, id: 0 });
  said = [];
  for (const step of [0, 1, 2]) for (const rank of [0, 1]) requests.step({ rank, id: 1 }, 0, step);
  requests.stop({ code: "ERR_ABORTED", message: "enough" });
  for (const step of [2, 3]) requests.step({ rank: 1, id: 1 }, 0, step);
  expect(said).toEqual([
    ...["0: go", "1: go", "0: go, shown", "1: go, shown", "0: go", "1: go"],
    ...["1: go", "1: stop: enough"],
  ]);
  expect(asked).toBe(3);
});
