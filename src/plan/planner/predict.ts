import { type AttentionWork, type Dtype, flopsOf, type Operation, type Product } from "../../models/walk/operation.js";
import { sumTakesTwoShots } from "../../models/walk/walk.js";
import type { Device, Links, Rates, Wire } from "./device.js";
import type { Placement } from "./placement.js";

/**
 * The few numbers that are fitted over all recorded runs, for all devices (bench/planner.ts fits them, and tells the error of each run
 * that the others predict).
 */
export interface Coefficients {
  /** Of a product's shorter side, arithmetic or memory, what the longer does not hide. */
  readonly productOverlap: number;
  /** Of what the last wave of tiles leaves idle, the share that is lost: at the power limit the others run faster meanwhile. */
  readonly waveLoss: number;
  /** Of a ring's transfer that attention hides, what it costs all the same: copies take memory bandwidth and power. */
  readonly ringLoss: number;
  /** What the slowest of n devices adds, for each doubling of n. */
  readonly spread: number;
}

export const coefficients: Coefficients = { productOverlap: 0.8, waveLoss: 0.1, ringLoss: 0.8, spread: 0.008 };

/** Milliseconds of a piece of work, on its slowest rank; the four kinds add up to the whole. */
export interface Prediction {
  readonly milliseconds: number;
  readonly attention: number;
  readonly products: number;
  readonly elementwise: number;
  /** Communication that compute does not hide. */
  readonly communication: number;
  /** Communication that attention hides. */
  readonly hidden: number;
}

/** What operations run on. */
export interface Setting {
  readonly device: Device;
  readonly links: Links;
  readonly placement: Placement;
  /** Devices in use. */
  readonly devices: number;
  /** Workers that share one device, and take turns. */
  readonly sharing: number;
  readonly coefficients?: Coefficients;
}

/** A second shot's meeting (bench/NOTES.md, sums over peer memory), in microseconds. */
const SECOND_SHOT = 3;

export function predict(operations: readonly Operation[], setting: Setting): Prediction {
  const { device, placement, sharing, devices, coefficients: fitted = coefficients } = setting;
  const slower = sharing * (1 + fitted.spread * Math.log2(devices));
  const sum = { attention: 0, products: 0, elementwise: 0, communication: 0, hidden: 0 };
  for (const operation of operations) {
    const { times } = operation;
    switch (operation.kind) {
      case "product":
        sum.products += times * slower * productTime(operation, device, fitted);
        break;
      case "attention": {
        const compute = slower * attentionTime(operation, device, fitted);
        const transfer = ringTime(operation, setting);
        const shorter = Math.min(compute, transfer);
        sum.attention += times * compute;
        sum.communication += times * (transfer - shorter + fitted.ringLoss * shorter);
        sum.hidden += times * shorter * (1 - fitted.ringLoss);
        break;
      }
      case "convolution":
        sum.products += (times * slower * flopsOf(operation)) / rateOf(device.convolutions, operation.dtype);
        break;
      case "pass":
        sum.elementwise +=
          times * slower * (operation.bytes / (device.memoryGBs * 1e9) + device.launchMicroseconds / 1e6);
        break;
      case "sum": {
        const { bytes, ranks, scattered, group } = operation;
        const two = !scattered && sumTakesTwoShots(bytes, ranks);
        const read = scattered ? (ranks - 1) / ranks : two ? (2 * (ranks - 1)) / ranks : ranks - 1;
        const wire = wireOf(setting, group, "peerReads");
        const local = placement.transports[group] === "nccl" ? (ranks * bytes) / (device.memoryGBs * 1e9) : 0;
        sum.communication += times * (carried(wire, bytes * read) + local + (two ? SECOND_SHOT / 1e6 : 0));
        break;
      }
      case "gather": {
        const { bytes, ranks, group } = operation;
        sum.communication += times * carried(wireOf(setting, group, "peerReads"), (bytes * (ranks - 1)) / ranks);
        break;
      }
      case "halo":
        sum.communication += times * carried(wireOf(setting, "world", "peerReads"), operation.bytes);
        break;
    }
  }
  const ms = {
    ...{ attention: sum.attention * 1e3, products: sum.products * 1e3, elementwise: sum.elementwise * 1e3 },
    ...{ communication: sum.communication * 1e3, hidden: sum.hidden * 1e3 },
  };
  return { ...ms, milliseconds: ms.attention + ms.products + ms.elementwise + ms.communication };
}

/** Operations a second. @throws RangeError for a dtype without a rate: such plans are refused before. */
function rateOf(rates: Rates, dtype: Dtype): number {
  const rate = rates[dtype];
  if (rate === undefined) throw new RangeError(`There is no rate for ${dtype}.`);
  return rate * 1e12;
}

/** How many times longer tiles take than if they filled every wave. A first wave that is not full loses all of it. */
function waves(tiles: number, processors: number, loss: number): number {
  const exact = tiles / processors;
  const whole = Math.ceil(exact);
  return whole === 1 ? 1 / exact : 1 + loss * (whole / exact - 1);
}

/** Columns of a product's tile, which kernels choose by shape; rows are 128 (kernels/cuda/tiles). */
const TILE_COLUMNS = [256, 128];

function productTime(
  product: Product & { readonly beside: boolean },
  device: Device,
  { productOverlap, waveLoss }: Coefficients,
): number {
  const { rows, columns, dtype, bytes, activated, beside } = product;
  const tilings = TILE_COLUMNS.map((width) => {
    const [down, across] = [Math.ceil(rows / 128), Math.ceil(columns / width)];
    const padding = (down * 128 * across * width) / (rows * columns);
    return padding * waves(down * across * (beside ? 2 : 1), device.processors, waveLoss);
  });
  const longer = device.processors === 1 ? 1 : Math.min(...tilings);
  const compute = (longer * flopsOf(product)) / rateOf(device.products, dtype);
  const memory = bytes / (device.memoryGBs * 1e9);
  const activation = (activated * device.activationPicoseconds) / 1e12;
  const launch = device.launchMicroseconds / 1e6;
  return Math.max(compute, memory) + productOverlap * Math.min(compute, memory) + activation + launch;
}

/** Queries of a block of attention on Hopper, by head dimension and whether operands are e4m3 (kernels/cuda/tiles/tiles.h). */
function queriesOfTile(headDim: number, dtype: Dtype): number {
  if (headDim <= 32) return dtype === "e4m3" ? 256 : 192;
  return headDim <= 64 ? 192 : 128;
}

function attentionTime(
  work: AttentionWork & { readonly beside: boolean },
  device: Device,
  { waveLoss }: Coefficients,
): number {
  const { heads, queries, keys, headDim, dtype, ranks, beside } = work;
  const launch = device.launchMicroseconds / 1e6;
  const rate = attentionRate(device, headDim, dtype) * 1e12;
  if (device.processors === 1) return flopsOf(work) / rate + launch;
  const rows = queriesOfTile(headDim, dtype);
  const tiles = heads * Math.ceil(queries / rows);
  // In e4m3 the last wave's keys are shared out, where they are in one block.
  const shared = dtype === "e4m3" && ranks === 1 && tiles > device.processors;
  const longer = shared ? 1 : waves(beside ? 2 * tiles : tiles, device.processors, waveLoss);
  const ofTile = (4 * rows * keys * headDim * device.processors) / rate + device.tileMicroseconds / 1e6;
  return (tiles / device.processors) * longer * ofTile + launch;
}

/** 10^12 operations a second, between the head dimensions that are known. */
export function attentionRate({ attention }: Pick<Device, "attention">, headDim: number, dtype: Dtype): number {
  const known = attention.flatMap(({ headDim: at, rates }) => (rates[dtype] ? [{ at, rate: rates[dtype] }] : []));
  known.sort((a, b) => a.at - b.at);
  const [below, above] = [known.findLast(({ at }) => at <= headDim), known.find(({ at }) => at >= headDim)];
  if (!below || !above) {
    const nearest = below ?? above;
    if (!nearest) throw new RangeError(`There is no rate of attention in ${dtype}.`);
    return nearest.rate;
  }
  if (below.at === above.at) return below.rate;
  return below.rate + ((above.rate - below.rate) * (headDim - below.at)) / (above.at - below.at);
}

/** Seconds until a rank has the keys and values of all others. */
function ringTime({ messageBytes, ranks }: AttentionWork, setting: Setting): number {
  if (messageBytes === 0) return 0;
  const wire = wireOf(setting, "ring", "peerCopies");
  const messages = ranks - 1;
  if (setting.placement.transports.ring === "peer") return carried(wire, messages * messageBytes);
  return messages * carried(wire, messageBytes);
}

function wireOf(
  { links, placement }: Setting,
  group: "tp" | "ulysses" | "ring" | "cfg" | "world",
  within: "peerReads" | "peerCopies",
): Wire {
  if (placement.spans[group]) return links.network;
  return placement.transports[group] === "nccl" ? links.nccl : links[within];
}

/** Seconds. */
function carried({ gigabytesPerSecond, microseconds }: Wire, bytes: number): number {
  return bytes / (gigabytesPerSecond * 1e9) + microseconds / 1e6;
}
