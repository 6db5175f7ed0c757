import { DitrunError } from "../../failure.js";
import { toFloat32 } from "../../formats/numbers.js";
import type { LinksTask, linkPatterns } from "../../protocol/job.js";
import type { LinksRank } from "../../protocol/results.js";
import type { Context } from "../comm/context.js";
import type { Group } from "../comm/group.js";
import { awaitRound } from "../comm/ring.js";
import { copy } from "../ops/copy.js";
import type { Device } from "../runtime/device.js";
import { freeGraph, launchGraph } from "../runtime/graph.js";
import { dtypeBytes, type Tensor, tensor, tensorBytes } from "../runtime/tensor.js";
import type { Store } from "../store.js";
import type { Frame } from "./frame.js";
import { tell } from "./stage-clock.js";

type PatternName = (typeof linkPatterns)[number];

/** Exchanges of one graph: enough to hide its launch, and even, so that blocks that take turns are back at the first. */
const EXCHANGES = 10;
/** Values that are checked: the last ones of a message. */
const CHECKED = 32;

/** One exchange of a message: what this rank sends, how, and what each place holds after the transfer. */
interface Exchange {
  readonly sent: Tensor;
  transfer(): void;
  readonly received: readonly { readonly place: Tensor; readonly value: number }[];
}

/** Makes an exchange of a message of that many bf16 values; its memory is the arena's or the peer heap's. */
type Pattern = (count: number) => Exchange;

/** Times all-reduce, ring shift and halo exchange between all ranks, after checking that the right values arrive. */
export async function runLinks(frame: Frame, task: LinksTask, store: Store): Promise<LinksRank> {
  return frame.alone(task.plan, store, async (context) => {
    const { device } = context;
    const cases = patternsOf(context).flatMap(([name, pattern]) =>
      task.sizes.map((bytes) => ({ name, bytes, pattern: () => pattern(bytes / dtypeBytes("bf16")) })),
    );
    await context.prepare(() => {
      // Twice: the two blocks that take turns are both to be reserved.
      for (const { pattern } of cases) for (let turn = 0; turn < 2; turn++) exchangeOnce(device, pattern);
    });
    const own = device.allocatePersistent("bf16", [CHECKED]);
    await device.upload(own, bf16(Array.from({ length: CHECKED }, () => sentBy(store.rank))));
    const links: LinksRank["links"] = [];
    for (const each of cases) {
      const { name, bytes, pattern } = each;
      for (let turn = 0; turn < 2; turn++) await check(context, each, own);
      const microseconds = await time(context, pattern, task.repetitions);
      // A round of the ring is a message from each other rank, one after the other.
      const messages = name === "ring shift" ? store.size - 1 : 1;
      await tell(store, { stage: "case", done: links.length + 1, total: cases.length, milliseconds: 0 });
      links.push({ pattern: name, bytes, microseconds: microseconds.map((each) => each / messages) });
    }
    return { rank: store.rank, device: device.info.name, links };
  });
}

function exchangeOnce(device: Device, pattern: () => Exchange): void {
  device.arena.scope(() => pattern().transfer());
}

/** Device time of one exchange in microseconds, for each repetition. */
async function time({ device, world }: Context, pattern: () => Exchange, repetitions: number): Promise<number[]> {
  const graph = device.capture(() => {
    for (let index = 0; index < EXCHANGES; index++) exchangeOnce(device, pattern);
  });
  const microseconds: number[] = [];
  // The first launch loads the graph.
  for (let repetition = -1; repetition < repetitions; repetition++) {
    world.barrier();
    const elapsed = device.time(() => launchGraph(device, graph));
    await device.synchronize();
    const each = (elapsed() * 1e3) / EXCHANGES;
    if (repetition >= 0) microseconds.push(each);
  }
  freeGraph(device, graph);
  return microseconds;
}

/** @param own what this rank sends. @throws DitrunError when the end of a message holds another value than its sender's. */
async function check(
  context: Context,
  { name, bytes, pattern }: { name: string; bytes: number; pattern: () => Exchange },
  own: Tensor,
): Promise<void> {
  const { device, world } = context;
  // What the scope gives back holds its values until something else allocates.
  const exchange = device.arena.scope(() => {
    const made = pattern();
    copy(device, endOf(made.sent), own, tensorBytes(own.dtype, own.shape), "communication");
    made.transfer();
    return made;
  });
  await device.synchronize();
  for (const { place, value } of exchange.received) {
    const values = toFloat32("BF16", await device.download(endOf(place)));
    const wrong = values.find((found) => found !== value);
    if (wrong !== undefined) {
      throw new DitrunError(
        "ERR_LINK_WRONG",
        `The ${name} of ${bytes} bytes over ${world.transport} gave rank ${world.rank} the value ${wrong} instead of ${value}: the link, its driver or ditrun is at fault, so no time of it is reported.`,
      );
    }
  }
}

/** What a rank sends: small whole numbers, whose sum over up to 85 ranks bf16 holds exactly. */
function sentBy(rank: number): number {
  return (rank % 3) + 1;
}

/** The last values of a message, where a transfer that was cut short shows. */
function endOf(x: Tensor): Tensor {
  const count = x.shape.at(-1) ?? 0;
  return tensor(x.address + (count - CHECKED) * dtypeBytes(x.dtype), x.dtype, [CHECKED]);
}

/** Values that bf16 holds exactly. */
function bf16(values: readonly number[]): Uint8Array {
  const words = new Uint32Array(new Float32Array(values).buffer);
  return new Uint8Array(Uint16Array.from(words, (word) => word >>> 16).buffer);
}

function patternsOf(context: Context): [PatternName, Pattern][] {
  const { world } = context;
  return [
    ["all-reduce", allReduce(context)],
    ["ring shift", ringShift(context)],
    ["halo", halo(context)],
    ...(world.sumInPlace ? [["NCCL all-reduce", ownAllReduce(context)] satisfies [PatternName, Pattern]] : []),
  ];
}

/** What the ranks' values add up to. */
function sumOver({ size }: Group): number {
  return Array.from({ length: size }, (_, rank) => sentBy(rank)).reduce((sum, each) => sum + each, 0);
}

/** Every rank gets the sum, as of a row-parallel layer. */
function allReduce({ device, world }: Context): Pattern {
  return (count) => {
    const sent = world.partial(1, count, "bf16");
    const out = device.allocate("bf16", [1, count]);
    return { sent, transfer: () => world.allReduce(sent, { out }), received: [{ place: out, value: sumOver(world) }] };
  };
}

/** The transport's own call, in place and in bf16, which no layer uses: what sums are compared with. */
function ownAllReduce({ world }: Context): Pattern {
  return (count) => {
    const sent = world.partial(1, count, "bf16");
    return { sent, transfer: () => world.sumInPlace?.(sent), received: [{ place: sent, value: sumOver(world) }] };
  };
}

/** A whole round of ring attention's messages, by what carries them there, with a wait for each in place of attention. */
function ringShift({ device, world }: Context): Pattern {
  const ring = world.ring();
  return (count) => {
    const sent = device.allocate("bf16", [count]);
    const bytesOfRank = Array<number>(world.size).fill(count * dtypeBytes("bf16"));
    const received: { place: Tensor; value: number }[] = [];
    const transfer = () => {
      const round = ring.start(sent.address, bytesOfRank);
      awaitRound(device, round);
      round.finish();
      const [, ...arrived] = round.steps.flatMap(({ messages }) => messages);
      received.push(
        ...arrived.map(({ rank, address }) => ({ place: tensor(address, "bf16", [count]), value: sentBy(rank) })),
      );
    };
    return { sent, transfer, received };
  };
}

/** Every rank exchanges one row with the rank above and the rank below, as the video decoder does; the ends have one neighbour. */
function halo(context: Context): Pattern {
  const { device, world } = context;
  const exchange = world.halo();
  const top = world.rank > 0 ? 1 : 0;
  const bottom = world.rank < world.size - 1 ? 1 : 0;
  return (count) => {
    const volume = device.allocate("bf16", [1, top + 1 + bottom, 1, count]);
    const row = (index: number) => tensor(volume.address + index * count * dtypeBytes("bf16"), "bf16", [count]);
    const above = top ? [{ place: row(0), value: sentBy(world.rank - 1) }] : [];
    const below = bottom ? [{ place: row(top + 1), value: sentBy(world.rank + 1) }] : [];
    return {
      sent: row(top),
      transfer: () => exchange.exchange(volume, { top, bottom }),
      received: [...above, ...below],
    };
  };
}
