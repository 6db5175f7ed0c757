import type { Device, DeviceFile, Links, Rates } from "./device.js";

// Rates of known devices. Those of the H200 are measured (bench/NOTES.md, bench/results): in forwards, at the power limit. Others are
// the H200's times the ratio of published peaks, as no such device was at hand.

const h200: Device = {
  name: "NVIDIA H200",
  source: "measured in November (bench/results)",
  memoryGiB: 139,
  processors: 132,
  // "GEMM, sm_90" and the kernels of the 14B's forward: 32760×15360×5120 730, 32760×5120×13824 751 TFLOP/s; e4m3 8192³ 1385.
  products: { fp32: 45, bf16: 745, fp16: 745, e4m3: 1300 },
  // "Attention forward, sm_90", fp8 and f16, and what the forwards' kernel tables have: the same, 1 to 4 % slower.
  attention: [
    { headDim: 32, rates: { fp32: 8, bf16: 485, fp16: 530, e4m3: 825 } },
    { headDim: 64, rates: { fp32: 8, bf16: 646, fp16: 690, e4m3: 1080 } },
    { headDim: 128, rates: { fp32: 8, bf16: 722, fp16: 700, e4m3: 1290 } },
  ],
  // "Wan's decode": 270 TFLOP in 0.44 s; float32 by the generic kernel.
  convolutions: { fp32: 9.6, bf16: 630, fp16: 600 },
  // "Wan beside attention and products": a copy reaches 3.3 to 4.2 TB/s, norms of 50 to 80 µs the same.
  memoryGBs: 3800,
  launchMicroseconds: 2,
  // "Few keys": 4800 cycles a tile of queries are start and end.
  tileMicroseconds: 2.7,
  // 65536×2048×512 with GELU beside the same product without.
  activationPicoseconds: 0.55,
};

/** The Hopper's kernels on another device. @param arithmetic and memory: its published peaks over the H200's. */
function scaled(
  name: string,
  source: string,
  of: { readonly arithmetic: number; readonly memory: number; readonly fp8?: number },
  own: Pick<Device, "memoryGiB" | "processors">,
): Device {
  const rates = ({ fp32, bf16, fp16, e4m3 }: Rates): Rates => ({
    ...(fp32 && { fp32 }),
    ...(bf16 && { bf16: bf16 * of.arithmetic }),
    ...(fp16 && of.fp8 && { fp16: fp16 * of.arithmetic }),
    ...(e4m3 && of.fp8 && { e4m3: e4m3 * of.fp8 }),
  });
  return {
    ...{ ...h200, ...own, name, source, memoryGBs: h200.memoryGBs * of.memory },
    products: { ...rates(h200.products), ...(h200.products.bf16 && { fp16: h200.products.bf16 * of.arithmetic }) },
    attention: h200.attention.map((row) => ({ ...row, rates: rates(row.rates) })),
    convolutions: { ...rates(h200.convolutions), fp16: (h200.convolutions.fp16 ?? 1) * of.arithmetic },
    activationPicoseconds: h200.activationPicoseconds / of.arithmetic,
  };
}

// Published: H200 and H100 SXM 989 TFLOP/s in bf16 and 1979 in fp8, 4.8 and 3.35 TB/s; A100 SXM 312, none, 2.04; L40S 362, 733, 0.864.
const h100 = scaled(
  "NVIDIA H100",
  "the H200's measured rates, memory by published peaks (3.35 of 4.8 TB/s); not measured",
  { arithmetic: 1, memory: 3.35 / 4.8, fp8: 1 },
  { memoryGiB: 79, processors: 132 },
);
const a100 = scaled(
  "NVIDIA A100",
  "the H200's measured rates by published peaks (312 of 989 TFLOP/s, 2.04 of 4.8 TB/s); not measured",
  { arithmetic: 312 / 989, memory: 2.04 / 4.8 },
  { memoryGiB: 79, processors: 108 },
);
const l40s = scaled(
  "NVIDIA L40S",
  "the H200's measured rates by published peaks (362 of 989 TFLOP/s, 0.86 of 4.8 TB/s); not measured",
  { arithmetic: 362 / 989, memory: 0.864 / 4.8 },
  { memoryGiB: 44, processors: 142 },
);

/** One CPU core's worth of the CPU module, about: what matters is the order of plans, which calibration makes exact. */
const cpu: Device = {
  name: "CPU",
  source: "two cores of a server's processor, about",
  memoryGiB: 16,
  processors: 1,
  products: { fp32: 0.1, bf16: 0.1, fp16: 0.1, e4m3: 0.1 },
  attention: [{ headDim: 32, rates: { fp32: 0.05, bf16: 0.05, fp16: 0.05, e4m3: 0.05 } }],
  convolutions: { fp32: 0.05, bf16: 0.05, fp16: 0.05 },
  memoryGBs: 8,
  launchMicroseconds: 20,
  tileMicroseconds: 0,
  activationPicoseconds: 1000,
};

// "Sums, gathers and halos over peer memory": 64 KiB 8 µs and 64 MiB 209 µs between two, NCCL 8.5 and 247; rings 14.5 and 189.
const nvlink: Links = {
  source: "measured between two and four H200 (bench/NOTES.md)",
  peerReads: { gigabytesPerSecond: 330, microseconds: 7 },
  peerCopies: { gigabytesPerSecond: 352, microseconds: 14 },
  nccl: { gigabytesPerSecond: 280, microseconds: 12 },
  // Published: 400 Gbit/s InfiniBand, one adapter for each GPU; nine tenths of it. Not measured.
  network: { gigabytesPerSecond: 45, microseconds: 25 },
};

/** NVLink of other generations. @param share of an H200's 900 GB/s. */
const nvlinkOf = (share: number): Links => ({
  ...nvlink,
  source: "the H200's measured links by published bandwidth; not measured",
  peerReads: { ...nvlink.peerReads, gigabytesPerSecond: nvlink.peerReads.gigabytesPerSecond * share },
  peerCopies: { ...nvlink.peerCopies, gigabytesPerSecond: nvlink.peerCopies.gigabytesPerSecond * share },
  nccl: { ...nvlink.nccl, gigabytesPerSecond: nvlink.nccl.gigabytesPerSecond * share },
});

// Published: PCIe 4.0 ×16 carries 32 GB/s each way; three quarters of it. Not measured.
const pcie: Links = {
  source: "PCIe 4.0 ×16 as published, three quarters of it; not measured",
  peerReads: { gigabytesPerSecond: 20, microseconds: 15 },
  peerCopies: { gigabytesPerSecond: 24, microseconds: 20 },
  nccl: { gigabytesPerSecond: 18, microseconds: 25 },
  network: { gigabytesPerSecond: 20, microseconds: 30 },
};

/** Shared memory of one host, and TCP. */
const host: Links = {
  source: "shared memory of a server, about",
  peerReads: { gigabytesPerSecond: 5, microseconds: 100 },
  peerCopies: { gigabytesPerSecond: 5, microseconds: 100 },
  nccl: { gigabytesPerSecond: 1, microseconds: 500 },
  network: { gigabytesPerSecond: 0.1, microseconds: 1000 },
};

/** By the names that --gpu takes. */
export const devices = {
  h200: { device: h200, links: nvlink },
  h100: { device: h100, links: nvlink },
  a100: { device: a100, links: nvlinkOf(600 / 900) },
  l40s: { device: l40s, links: pcie },
  cpu: { device: cpu, links: host },
} as const satisfies Record<string, DeviceFile>;

/** The entry for a device as its driver calls it, as `NVIDIA H100 80GB HBM3`. */
export function knownDevice(name: string): DeviceFile | undefined {
  const known = (["h200", "h100", "a100", "l40s"] as const).find((each) => new RegExp(`\\b${each}\\b`, "i").test(name));
  return known && devices[known];
}
