import { z } from "zod";

const rate = z.number().positive();
/** 10^12 operations a second, by what is multiplied. A dtype that is left out has no fast kernel. */
const ratesSchema = z.strictObject({
  fp32: rate.optional(),
  bf16: rate.optional(),
  fp16: rate.optional(),
  e4m3: rate.optional(),
});
export type Rates = z.infer<typeof ratesSchema>;

/** What one kind of device does a second, as a forward sees it: with neighbours, under load. */
export const deviceSchema = z.strictObject({
  name: z.string().min(1),
  /** Where the numbers are from. */
  source: z.string().min(1),
  memoryGiB: rate,
  /** Multiprocessors, over which tiles are dealt out in waves; 1 where work divides without waves, as on a CPU. */
  processors: z.int().min(1),
  /** Large matrix products. */
  products: ratesSchema,
  /** Attention to many keys, by the columns of a head; what lies between is interpolated. */
  attention: z.array(z.strictObject({ headDim: z.int().min(1), rates: ratesSchema })).min(1),
  /** Convolutions of the VAE. */
  convolutions: ratesSchema,
  /** 10^9 bytes a second, read and written, by passes over tensors. */
  memoryGBs: rate,
  /** From the end of one launch to the work of the next, in a graph. */
  launchMicroseconds: z.number().min(0),
  /** Of a tile of queries, before its first key and after its last. */
  tileMicroseconds: z.number().min(0),
  /** Picoseconds that an activation adds to each output of a product. */
  activationPicoseconds: z.number().min(0),
});
export type Device = z.infer<typeof deviceSchema>;

/** One way to carry messages. */
const wireSchema = z.strictObject({
  /** 10^9 bytes a second that a rank gets from its peers, both ways at once. */
  gigabytesPerSecond: rate,
  /** Of a message that is as good as empty, a meeting of all ranks included. */
  microseconds: z.number().min(0),
});
export type Wire = z.infer<typeof wireSchema>;

/** What lies between devices. */
export const linksSchema = z.strictObject({
  source: z.string().min(1),
  /** Sums and gathers over peer memory, where kernels read from peers. */
  peerReads: wireSchema,
  /** Rings over peer memory, where copy engines push. */
  peerCopies: wireSchema,
  /** NCCL within a host. */
  nccl: wireSchema,
  /** NCCL between hosts, for each device. */
  network: wireSchema,
});
export type Links = z.infer<typeof linksSchema>;

/** A file that describes a device of one's own, and what `ditrun plan --calibrate` leaves. */
export const deviceFileSchema = z.strictObject({ device: deviceSchema, links: linksSchema });
export type DeviceFile = z.infer<typeof deviceFileSchema>;

/** What plans are chosen for. */
export interface Machine extends DeviceFile {
  /** Devices of a host; more workers share them. */
  readonly devicesPerHost: number;
  readonly hosts: number;
  /** Whether the device's numbers were measured on this machine. */
  readonly calibrated?: boolean;
}
