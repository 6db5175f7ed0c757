import { describe, expect, it } from "vitest";
import type { PlanDocument } from "../../../../src/plan/schema.js";
import type { Context } from "../../../../src/worker/comm/context.js";
import { type Range, rangeOf } from "../../../../src/worker/comm/shares.js";
import { copy, copyMatrix, fillZero } from "../../../../src/worker/ops/copy.js";
import { freeGraph, launchGraph } from "../../../../src/worker/runtime/graph.js";
import { rowsOf, type Tensor, tensor } from "../../../../src/worker/runtime/tensor.js";
import { floats, onRanks } from "../../../layers/ranks.js";

const CALLS = 3;
const REPLAYS = 2;

/** Each rank's tokens and columns, in shares far apart, and none for some. */
const sharesOf: Record<number, { tokens: readonly number[]; columns: readonly number[] }> = {
  1: { tokens: [5], columns: [7] },
  2: { tokens: [90, 7], columns: [3, 64] },
  3: { tokens: [33, 0, 200], columns: [5, 40, 1] },
  4: { tokens: [1, 64, 0, 31], columns: [16, 0, 7, 24] },
};

const sum = (counts: readonly number[]) => counts.reduce((total, count) => total + count, 0);
const columnsOf = (x: Tensor, { start, count }: Range) =>
  tensor(x.address + 4 * start, x.dtype, [x.shape[0] ?? 0, count], x.rowStride);

/**
 * A matrix of all tokens and columns, of which each rank has its tokens, is turned into one of which each has its columns, and back:
 * on one side parts are strided. Several times on changing data while ranks are held up, then as a graph.
 * @returns what was wrong.
 */
async function turn({ device, world }: Context, prepare: Context["prepare"]): Promise<string[]> {
  const { rank, size } = world;
  const { tokens = [], columns = [] } = sharesOf[size] ?? {};
  const [rows, width] = [sum(tokens), sum(columns)];
  const own = { tokens: rangeOf(tokens, rank), columns: rangeOf(columns, rank) };
  const valueAt = (round: number, call: number, row: number, column: number) =>
    ((round * CALLS + call) * rows + row) * width + column;
  const allocate = (shape: readonly [number, number]) => {
    // What has no elements must be somewhere as well.
    const room = device.allocatePersistent("fp32", [Math.max(1, shape[0] * shape[1])]);
    return { ...room, shape, rowStride: shape[1] };
  };
  const calls = Array.from({ length: CALLS }, (_, call) => ({
    call,
    mine: allocate([own.tokens.count, width]),
    turned: allocate([rows, own.columns.count]),
    back: allocate([own.tokens.count, width]),
  }));
  const delay = device.allocatePersistent("fp32", [1 << 16]);
  const queue = () => {
    for (const { call, mine, turned, back } of calls) {
      fillZero(device, tensor(delay.address, "u8", [4 << ((5 * rank + 7 * call) % 17)]));
      const columnsFor = (x: Tensor) => columns.map((_, r) => columnsOf(x, rangeOf(columns, r)));
      const tokensOf = tokens.map((count, r) => rowsOf(turned, rangeOf(tokens, r).start, count));
      world.allToAll(columnsFor(mine), tokensOf);
      world.allToAll(tokensOf, columnsFor(back));
    }
  };
  const matrix = (round: number, call: number, across: Range, down: Range) =>
    Float32Array.from({ length: across.count * down.count }, (_, i) =>
      valueAt(round, call, down.start + Math.floor(i / across.count), across.start + (i % across.count)),
    );
  const all = { start: 0, count: width };
  const fill = async (round: number) => {
    for (const { call, mine, turned, back } of calls) {
      if (own.tokens.count > 0) {
        const values = matrix(round, call, all, own.tokens);
        await device.upload(mine, new Uint8Array(values.buffer));
        await device.upload(back, new Uint8Array(values.byteLength));
      }
      if (own.columns.count > 0) await device.upload(turned, new Uint8Array(4 * rows * own.columns.count));
    }
  };
  const wrong = async (round: number) => {
    const found: string[] = [];
    for (const { call, turned, back } of calls) {
      const pairs = [
        ["turned", turned, matrix(round, call, own.columns, { start: 0, count: rows })],
        ["back", back, matrix(round, call, all, own.tokens)],
      ] as const;
      for (const [name, x, want] of pairs) {
        const got = want.length > 0 ? await floats(device, x) : want;
        const index = want.findIndex((value, i) => value !== got[i]);
        if (index >= 0) found.push(`${name} of rank ${rank}, round ${round}, call ${call}: ${got[index]} at ${index}`);
      }
    }
    return found;
  };

  await prepare(queue);
  await fill(0);
  queue();
  const found = await wrong(0);
  const graph = device.capture(queue);
  for (let round = 1; round <= REPLAYS; round++) {
    await fill(round);
    launchGraph(device, graph);
    found.push(...(await wrong(round)));
  }
  freeGraph(device, graph);
  return found;
}

describe("all-to-all", () => {
  it.for([
    ["solo", 1],
    ["peer", 2],
    ["peer", 3],
    ["peer", 4],
    ["nccl", 2],
    ["nccl", 3],
    ["nccl", 4],
  ] as const)(
    "over %s brings %i ranks every part, uneven and strided, call after call and replayed",
    async ([transport, ranks]) => {
      const plan: PlanDocument = { mesh: { cp: ranks }, ring: { transport: transport === "nccl" ? "nccl" : "peer" } };
      const results = await onRanks(plan, async (context) => {
        expect(context.world.transport).toBe(transport);
        return turn(context, (body) => context.prepare(body));
      });
      expect(results).toEqual(Array(ranks).fill([]));
    },
  );

  it("sends nothing over what its receiver still reads, launch after launch of one graph", async () => {
    // Rank 0 first takes the long part of rank 2; rank 1 has only short ones, and could send its next meanwhile.
    const lengthOf = (from: number, to: number) => (from === 2 && to === 0 ? 1 << 22 : 1);
    const launches = 3;
    const results = await onRanks({ mesh: { cp: 3 } }, async (context) => {
      const { device, world } = context;
      const { rank } = world;
      const ranks = [0, 1, 2];
      const parts = ranks.map((to) => device.allocatePersistent("fp32", [1, lengthOf(rank, to)]));
      const outs = ranks.map((from) => device.allocatePersistent("fp32", [1, lengthOf(from, rank)]));
      const next = device.allocatePersistent("fp32", [1, launches]);
      const got = device.allocatePersistent("fp32", [1, launches]);
      await device.upload(
        next,
        new Uint8Array(Float32Array.from({ length: launches }, (_, i) => 10 * rank + i).buffer),
      );
      const copy = (to: number, from: number) =>
        copyMatrix(device, tensor(to, "u8", [1, 4]), tensor(from, "u8", [1, 4]));
      const exchange = () => world.allToAll(parts, outs);
      device.measure(exchange);
      await context.allocate();
      const graph = device.capture(exchange);
      for (let launch = 0; launch < launches; launch++) {
        for (const { address } of parts) copy(address, next.address + 4 * launch);
        launchGraph(device, graph);
        copy(got.address + 4 * launch, outs[1]?.address ?? 0);
      }
      const values = [...(await floats(device, got))];
      freeGraph(device, graph);
      return values;
    });
    expect(results).toEqual(Array(3).fill([10, 11, 12]));
  });

  it("refuses parts that are not one for each rank, or an own part that does not fit its out", async () => {
    await onRanks({}, async ({ device, world }) => {
      const x = device.allocatePersistent("fp32", [2, 3]);
      expect(() => world.allToAll([x, x], [x])).toThrow("a group of 1 takes 1 parts and as many outs, not 2 and 1");
      expect(() => world.allToAll([x], [{ ...x, shape: [3, 2] }])).toThrow(
        "rank 0's own part is fp32 [2, 3], its out fp32 [3, 2]",
      );
    });
  });
});

describe("the groups of a mesh on two hosts", () => {
  it("are over peer memory within a host and over NCCL across, each right", async () => {
    const results = await onRanks(
      { mesh: { cp: 2, tp: 2 } },
      async (context) => {
        const { device, world, cp, ring, tp } = context;
        expect([world, cp, ring, tp].map(({ transport }) => transport)).toEqual(["nccl", "nccl", "nccl", "peer"]);
        const value = device.allocatePersistent("fp32", [1, 4]);
        await device.upload(value, new Uint8Array(new Float32Array(4).fill(10 ** world.rank).buffer));
        const out = device.allocatePersistent("fp32", [2, 4]);
        const queue = () => {
          for (const [index, group] of [cp, tp].entries()) {
            const partial = group.partial(1, 4, "fp32");
            copy(device, partial, value, 16);
            group.allReduce(partial, { out: rowsOf(out, index, 1) });
          }
          world.barrier();
        };
        await context.prepare(queue);
        queue();
        const sums = await floats(device, out);
        return [sums[0], sums[4]];
      },
      [0, 0, 1, 1],
    );
    expect(results).toEqual([
      [101, 11],
      [1010, 11],
      [101, 1100],
      [1010, 1100],
    ]);
  });
});
