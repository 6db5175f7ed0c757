import { toFloat32 } from "../../formats/numbers.js";
import { DitrunError, exitCodes } from "../../protocol/failure.js";
import type { Job, LinksTask, linkPatterns } from "../../protocol/job.js";
import type { LinksRank } from "../../protocol/results.js";
import { NcclGroup } from "../comm/nccl-group.js";
import { PeerGroup } from "../comm/peer-group.js";
import { Context } from "../context.js";
import { Device } from "../device/device.js";
import { dtypeBytes, type Tensor, tensor } from "../device/tensor.js";
import { makeHaloExchange } from "../parallel/halo-exchange.js";
import type { Store } from "../store.js";

type PatternName = (typeof linkPatterns)[number];

/** Exchanges of one graph: enough to hide its launch, and even, so that blocks that take turns are back at the first. */
const EXCHANGES = 10;
/** Values that are checked: the last ones of a message. */
const CHECKED = 32;

/** One exchange of a message: what this rank sends, how, and what each place then holds. */
interface Exchange {
  readonly sent: Tensor;
  transfer(): void;
  readonly received: readonly { readonly place: Tensor; readonly value: number }[];
}

/** Makes an exchange of a message of that many bf16 values; its memory is the arena's or the peer heap's. */
type Pattern = (count: number) => Exchange;

/** Times all-reduce, ring shift and halo exchange between all ranks, after checking that the right values arrive. */
export async function runLinks(job: Job, task: LinksTask, store: Store): Promise<LinksRank> {
  const device = Device.open(job.kernels, Number(process.env.LOCAL_RANK ?? 0));
  const context = await Context.create(device, store, task.plan);
  const cases = patternsOf(context).flatMap(([name, pattern]) =>
    task.sizes.map((bytes) => ({ name, bytes, pattern: () => pattern(bytes / dtypeBytes("bf16")) })),
  );
  await context.prepare(() => {
    // Twice: the two blocks that take turns are both to be reserved.
    for (const { pattern } of cases) for (let turn = 0; turn < 2; turn++) exchangeOnce(device, pattern);
  });
  const links: LinksRank["links"] = [];
  for (const { name, bytes, pattern } of cases) {
    for (let turn = 0; turn < 2; turn++) await check(context, name, bytes, pattern);
    const microseconds = await time(context, pattern, task.repetitions);
    links.push({ pattern: name, bytes, microseconds });
  }
  await device.synchronize();
  await context.close();
  device.close();
  return { rank: store.rank, device: device.info.name, links };
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
    const elapsed = device.time(() => device.kernels.call("graphLaunch", graph, device.streams.compute));
    await device.synchronize();
    const each = (elapsed() * 1e3) / EXCHANGES;
    if (repetition >= 0) microseconds.push(each);
  }
  device.kernels.call("graphDestroy", graph);
  return microseconds;
}

/** @throws DitrunError when the end of a message holds another value than its sender's. */
async function check(context: Context, name: string, bytes: number, pattern: () => Exchange): Promise<void> {
  const { device, world } = context;
  // The scope holds across the waits: nothing else allocates meanwhile.
  const exchange = device.arena.scope(pattern);
  await device.upload(endOf(exchange.sent), bf16(Array.from({ length: CHECKED }, () => sentBy(world.rank))));
  exchange.transfer();
  await device.synchronize();
  for (const { place, value } of exchange.received) {
    const values = toFloat32("BF16", await device.download(endOf(place)));
    const wrong = values.find((found) => found !== value);
    if (wrong !== undefined) {
      throw new DitrunError(
        `The ${name} of ${bytes} bytes over ${context.transport} gave rank ${world.rank} the value ${wrong} instead of ${value}: the link, its driver or ditrun is at fault, so no time of it is reported.`,
        exitCodes.mismatch,
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
  return [
    ["all-reduce", allReduce(context)],
    ["ring shift", ringShift(context)],
    ["halo", halo(context)],
  ];
}

/** Every rank gets the sum. Over NCCL it is NCCL's own call, in place, without the pass that adds bias and residual. */
function allReduce({ device, world }: Context): Pattern {
  const value = Array.from({ length: world.size }, (_, rank) => sentBy(rank)).reduce((sum, each) => sum + each, 0);
  return (count) => {
    const sent = world.partial(1, count, "bf16");
    if (world instanceof NcclGroup) {
      return { sent, transfer: () => world.sumInPlace(sent), received: [{ place: sent, value }] };
    }
    const out = device.allocate("bf16", [1, count]);
    return { sent, transfer: () => world.allReduce(sent, { out }), received: [{ place: out, value }] };
  };
}

/** Every rank sends to the next and receives from the one before, as a step of ring attention does. */
function ringShift({ device, world, heap }: Context): Pattern {
  const { rank, size } = world;
  const next = (rank + 1) % size;
  const previous = (rank - 1 + size) % size;
  let turn = 0;
  return (count) => {
    const sent = device.allocate("bf16", [count]);
    const bytes = count * dtypeBytes("bf16");
    if (!(world instanceof PeerGroup)) {
      const place = device.allocate("bf16", [count]);
      const transfer = () => {
        if (!(world instanceof NcclGroup)) throw new Error("One rank has no ring.");
        world.exchange(
          [{ address: sent.address, bytes, rank: next }],
          [{ address: place.address, bytes, rank: previous }],
        );
      };
      return { sent, transfer, received: [{ place, value: sentBy(previous) }] };
    }
    const name = `shift/${turn++ % 2}`;
    const slot = heap.block(name, bytes);
    const full = heap.flag(`${name}/full`);
    const free = heap.flag(`${name}/free`, true);
    const [here, ahead, behind] = [world.worldRank(rank), world.worldRank(next), world.worldRank(previous)];
    const place = tensor(heap.blockAddress(slot, here), "bf16", [count]);
    const transfer = () => {
      device.launch("communication", "flagsWait", () => [[heap.flagAddress(free, here)], 1, 1]);
      device.launch("communication", "copy", () => [heap.blockAddress(slot, ahead), sent.address, bytes]);
      device.launch("communication", "flagsWrite", () => [[heap.flagAddress(full, ahead)], 1, 1]);
      device.launch("communication", "flagsWait", () => [[heap.flagAddress(full, here)], 1, 1]);
      device.launch("communication", "flagsWrite", () => [[heap.flagAddress(free, behind)], 1, 1]);
    };
    return { sent, transfer, received: [{ place, value: sentBy(previous) }] };
  };
}

/** Every rank exchanges one row with the rank above and the rank below, as the video decoder does; the ends have one neighbour. */
function halo(context: Context): Pattern {
  const { device, world } = context;
  const exchange = makeHaloExchange(context);
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
