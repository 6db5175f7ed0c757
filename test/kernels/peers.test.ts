import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { PEER_BLOCKS } from "../../src/worker/runtime/abi.js";
import {
  allocate,
  at,
  check,
  download,
  F32,
  freeAll,
  lastError,
  made,
  poisoned,
  raw,
  sequence,
  streamSynchronizeAsync,
  upload,
  stream as uploads,
} from "./module.js";

// Two streams of one process play two ranks.
const ranks = [0, 1];
let streams: number[];
beforeEach(() => {
  streams = ranks.map(() => made((result) => raw.streamCreate(0, result)));
});
afterEach(() => {
  for (const stream of streams) check(raw.streamDestroy(stream));
  freeAll();
});

function zeroed(bytes: number): number {
  const address = allocate(bytes);
  check(raw.fillZero(address, bytes, uploads));
  check(raw.streamSynchronize(uploads));
  return address;
}
const finished = () => Promise.all(streams.map(async (stream) => check(await streamSynchronizeAsync(stream))));
const signalsOf = () => ranks.map(() => zeroed(4 * PEER_BLOCKS * ranks.length));

const plainSum = { base: 0, bias: 0, gate: 0, first: 0, columns: 1, ranks: 2, dtype: F32, sourceDtype: F32 };
const sumArguments = { ...plainSum, biasDtype: F32, shots: 1, reserved: 0 };

describe("peer_sum of the CPU module", () => {
  it.for([1, 2])("sums what both ranks gave, in %i shots, with bias, gate and base", async (shots) => {
    // Each rank's share, 40 elements, ends in the middle of a row.
    const [count, columns] = [80, 16];
    const [base, bias, gate] = [3, 4, 5].map((seed) => sequence(seed === 3 ? count : columns, F32, seed));
    if (!base || !bias || !gate) throw new Error("There are three.");
    const summands = ranks.map((rank) => sequence(count, F32, rank + 1));
    const blocks = summands.map((values) => upload(values, F32));
    const signals = signalsOf();
    const outs = ranks.map(() => poisoned(count, F32));
    const given = { base: upload(base, F32), bias: upload(bias, F32), gate: upload(gate, F32) };
    for (const rank of ranks) {
      const out = at(outs, rank);
      const args = { ...sumArguments, ...given, blocks, signals, out, rank, columns, total: count, count, shots };
      check(raw.peerSum(args, at(streams, rank)));
    }
    await finished();
    const f = Math.fround;
    const want = Array.from({ length: count }, (_, i) => {
      const sum = f(at(summands[0] ?? [], i) + at(summands[1] ?? [], i));
      return f(at(base, i) + f(f(sum + at(bias, i % columns)) * at(gate, i % columns)));
    });
    for (const out of outs) expect([...download(out, count, F32)]).toEqual(want);
  });

  it("sums in two shots what fills no whole unit, too", async () => {
    const count = 83;
    const summands = ranks.map((rank) => sequence(count, F32, rank + 1));
    const blocks = summands.map((values) => upload(values, F32));
    const [signals, outs] = [signalsOf(), ranks.map(() => poisoned(count, F32))];
    for (const rank of ranks) {
      const args = { ...sumArguments, blocks, signals, out: at(outs, rank), rank, total: count, count, shots: 2 };
      check(raw.peerSum(args, at(streams, rank)));
    }
    await finished();
    const want = Array.from({ length: count }, (_, i) =>
      Math.fround(at(summands[0] ?? [], i) + at(summands[1] ?? [], i)),
    );
    for (const out of outs) expect([...download(out, count, F32)]).toEqual(want);
  });

  it("waits for a rank that comes late, and ends a wait when its stream is destroyed", async () => {
    const blocks = ranks.map((rank) => upload([rank + 1], F32));
    const [signals, out] = [signalsOf(), poisoned(1, F32)];
    const args = { ...sumArguments, blocks, signals, out, total: 1, count: 1 };
    check(raw.peerSum({ ...args, rank: 0 }, at(streams, 0)));
    await new Promise((resolve) => setTimeout(resolve, 20));
    expect([...download(out, 1, F32)]).toEqual([Number.NaN]);
    check(raw.peerSum({ ...args, rank: 1, out: poisoned(1, F32) }, at(streams, 1)));
    await finished();
    expect([...download(out, 1, F32)]).toEqual([3]);
    check(raw.peerSum({ ...args, rank: 0 }, at(streams, 0)));
  });

  const refusals: [Record<string, number>, RegExp][] = [
    [{ shots: 3 }, /shots is 3/],
    [{ shots: 2, first: 8, count: 8 }, /two shots take whole blocks .* got elements 8 to 16 of 16/],
    [{ first: 9 }, /elements 9 to 25 do not lie in blocks of 16/],
    [{ rank: 2 }, /rank 2 of 2/],
    [{ dtype: 3 }, /dtype is dtype 3 \(f16\)/],
  ];
  it.for(refusals)("refuses %j", ([wrong, sentence]) => {
    const memory = allocate(64);
    const lists = { blocks: [memory, memory], signals: [memory, memory] };
    const args = { ...sumArguments, ...lists, out: memory, total: 16, count: 16, rank: 0, ...wrong };
    expect(raw.peerSum(args, at(streams, 0))).toBe(1);
    expect(lastError()).toMatch(sentence);
  });
});

describe("peer_exchange of the CPU module", () => {
  it("swaps rows, call after call, whatever the slots held before", async () => {
    const [rows, rowBytes, pitch] = [2, 8, 16];
    const slots = ranks.map(() => [poisoned(4, F32), poisoned(4, F32)] as const);
    const signals = ranks.map(() => zeroed(2 * 4 * PEER_BLOCKS));
    for (let call = 0; call < 5; call++) {
      const volumes = ranks.map((rank) => upload(sequence(8, F32, 10 * call + rank), F32));
      for (const rank of ranks) {
        const [own, other] = [slots[rank], slots[1 - rank]];
        const neighbour = {
          ...{ send: at(volumes, rank), receive: at(volumes, rank) + rowBytes },
          ...{ theirEven: other?.[0] ?? 0, theirOdd: other?.[1] ?? 0, ownEven: own?.[0] ?? 0, ownOdd: own?.[1] ?? 0 },
          ...{ theirSignals: at(signals, 1 - rank), ownSignals: at(signals, rank) },
        };
        const args = { neighbours: [neighbour], pitch, rowBytes, rows, neighbourCount: 1 };
        check(raw.peerExchange(args, at(streams, rank)));
      }
      await finished();
      for (const rank of ranks) {
        const mine = sequence(8, F32, 10 * call + rank);
        const theirs = sequence(8, F32, 10 * call + 1 - rank);
        const want = [0, 1].flatMap((row) => [
          ...mine.slice(4 * row, 4 * row + 2),
          ...theirs.slice(4 * row, 4 * row + 2),
        ]);
        expect([...download(at(volumes, rank), 8, F32)]).toEqual(want);
      }
    }
  });

  it("refuses addresses that rows of 16 bytes do not suit", () => {
    const memory = allocate(64);
    const addresses = { receive: memory, theirEven: memory, theirOdd: memory, ownEven: memory, ownOdd: memory };
    const neighbour = { ...addresses, send: memory + 4, theirSignals: memory, ownSignals: memory };
    const args = { neighbours: [neighbour], pitch: 16, rowBytes: 16, rows: 1, neighbourCount: 1 };
    expect(raw.peerExchange(args, at(streams, 0))).toBe(1);
    expect(lastError()).toMatch(/no multiple of 16, as 16 bytes a row need/);
  });
});
