import type { Device, DeviceFile, Links, Rates, Wire } from "./device.js";

/** What one worker measured of its device (protocol/results.ts, calibrateRankSchema). */
export interface Measured {
  readonly device: string;
  readonly memoryBytes: number;
  readonly multiprocessors: number;
  /** 10^12 operations a second. */
  readonly products: readonly { readonly dtype: keyof Rates; readonly tflops: number }[];
  readonly attention: readonly { readonly headDim: number; readonly dtype: keyof Rates; readonly tflops: number }[];
  readonly passGBs: number;
  readonly launchMicroseconds: number;
  readonly activationPicoseconds: number;
}

/** What links measured of one pattern and transport: from small messages to large. */
export interface LinkTime {
  readonly pattern: string;
  readonly transport: "peer" | "nccl";
  readonly bytes: number;
  readonly microseconds: number;
}

/**
 * A device's rates out of what one worker measured of it. @param base what stands in for what is not measured: convolutions, which keep
 * their ratio to products, and tiles. @param when in words, for the source.
 */
export function calibratedDevice(measured: Measured, base: Device, when: string): Device {
  const ratesOf = (found: readonly { readonly dtype: keyof Rates; readonly tflops: number }[]): Rates =>
    Object.fromEntries(found.map(({ dtype, tflops }) => [dtype, tflops]));
  const products = ratesOf(measured.products);
  const ratio = (products.bf16 ?? 1) / (base.products.bf16 ?? 1);
  const convolutions = Object.fromEntries(
    Object.entries(base.convolutions).flatMap(([dtype, rate]) => (rate === undefined ? [] : [[dtype, rate * ratio]])),
  );
  const headDims = [...new Set(measured.attention.map(({ headDim }) => headDim))];
  return {
    name: measured.device,
    source: `measured on this machine, ${when}`,
    memoryGiB: measured.memoryBytes / 2 ** 30,
    processors: base.processors === 1 ? 1 : measured.multiprocessors,
    products: { ...products, ...(products.bf16 && { fp16: products.bf16 }) },
    attention: headDims.map((headDim) => ({
      headDim,
      rates: ratesOf(measured.attention.filter((each) => each.headDim === headDim)),
    })),
    convolutions,
    memoryGBs: measured.passGBs,
    launchMicroseconds: measured.launchMicroseconds,
    tileMicroseconds: base.tileMicroseconds,
    activationPicoseconds: measured.activationPicoseconds,
  };
}

/** Latency by the smallest message, bandwidth by the largest. @param sent bytes that a rank gets for a message of so many. */
function wireOf(times: readonly LinkTime[], sent: (bytes: number) => number): Wire | undefined {
  const byBytes = times.toSorted((a, b) => a.bytes - b.bytes);
  const [small, large] = [byBytes[0], byBytes.at(-1)];
  if (!small || !large || small === large) return undefined;
  const seconds = Math.max(large.microseconds - small.microseconds, large.microseconds / 10) / 1e6;
  return { gigabytesPerSecond: sent(large.bytes) / seconds / 1e9, microseconds: small.microseconds };
}

/** Links out of what the ranks of one host measured; what was not measured stays as it was. @param ranks of the sums. */
export function calibratedLinks(times: readonly LinkTime[], ranks: number, base: Links, when: string): Links {
  const of = (pattern: string, transport: string) =>
    times.filter((each) => each.pattern === pattern && each.transport === transport);
  const shares = (bytes: number) => (ranks > 2 ? (2 * (ranks - 1) * bytes) / ranks : bytes);
  const peerReads = wireOf(of("all-reduce", "peer"), shares);
  const peerCopies = wireOf(of("ring shift", "peer"), (bytes) => bytes);
  const nccl = wireOf(of("ring shift", "nccl"), (bytes) => bytes);
  if (!peerReads && !peerCopies && !nccl) return base;
  return {
    source: `measured on this machine, ${when}`,
    peerReads: peerReads ?? base.peerReads,
    peerCopies: peerCopies ?? base.peerCopies,
    nccl: nccl ?? base.nccl,
    network: base.network,
  };
}

/** A file of what was measured. */
export function calibrationOf(
  measured: Measured,
  links: { readonly times: readonly LinkTime[]; readonly ranks: number },
  base: DeviceFile,
  when: string,
): DeviceFile {
  return {
    device: calibratedDevice(measured, base.device, when),
    links: calibratedLinks(links.times, links.ranks, base.links, when),
  };
}
