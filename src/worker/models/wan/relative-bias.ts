import type { Loader } from "../../layers/linear.js";
import type { Range } from "../../layers/split.js";
import type { Device } from "../../runtime/device.js";
import type { Tensor } from "../../runtime/tensor.js";
import { keep } from "../../weights/kept.js";

/** Distances fall into so many buckets, half of them for keys after the query. */
export const BUCKETS = 32;
const MAX_DISTANCE = 128;

/**
 * The bucket of key position - query position (T5, bidirectional; arXiv 1910.10683 §2.1): the first half of each
 * direction's buckets is exact, the rest grows with the logarithm up to MAX_DISTANCE. Rounded as PyTorch rounds, to float32.
 */
export function relativeBucket(offset: number): number {
  const half = BUCKETS / 2;
  const exact = half / 2;
  const distance = Math.abs(offset);
  const direction = offset > 0 ? half : 0;
  if (distance < exact) return direction + distance;
  const f = Math.fround;
  const share = f(f(Math.log(f(distance / exact))) / f(Math.log(MAX_DISTANCE / exact)));
  return direction + Math.min(exact + Math.trunc(f(share * (half - exact))), half - 1);
}

/** One layer's relative position bias: the table of buckets on the host, and its expansion for a length on the device. */
export class RelativeBias {
  private constructor(
    /** [buckets, heads of this rank]. */
    private readonly table: readonly number[],
    private readonly heads: number,
    /** float32, room for [heads, 2 · longest - 1]. */
    readonly expanded: Tensor,
  ) {}

  /** @param shape [buckets, heads] as stored; `own` are this rank's heads. */
  static async load(loader: Loader, name: string, shape: readonly number[], own: Range, longest: number) {
    const { device } = loader.context;
    const load = async () => ({ tensors: {}, numbers: await RelativeBias.#load(loader, name, shape, own) });
    const { numbers } = await keep(loader, name, load);
    const expanded = device.allocatePersistent("fp32", [own.count, 2 * longest - 1]);
    return new RelativeBias(numbers ?? [], own.count, expanded);
  }

  /** [buckets, heads of this rank], once the device's reader has settled. */
  static async #load(loader: Loader, name: string, shape: readonly number[], own: Range): Promise<number[]> {
    const { device } = loader.context;
    const [buckets = 0, heads = 0] = shape;
    const numbers: number[] = [];
    const whole = await device.stage("fp32", shape);
    const part = { rows: [{ start: 0, count: buckets }], columns: { start: 0, count: heads } };
    const init = { kind: "normal", std: (2 * buckets * heads) ** -0.5 } as const;
    await loader.source.load({ name, shape, init }, part, whole);
    await device.reader.after(async () => {
      const values = new Float32Array((await device.download(whole)).buffer);
      device.unstage(whole);
      for (let i = 0; i < buckets * own.count; i++) {
        numbers.push(values[Math.floor(i / own.count) * heads + own.start + (i % own.count)] ?? Number.NaN);
      }
    });
    return numbers;
  }

  /** Expands to [heads, 2 · length - 1], indexed by key - query + length - 1, as ditrun_attention takes it. */
  async setLength(device: Device, length: number): Promise<void> {
    const offsets = 2 * length - 1;
    const values = new Float32Array(this.heads * offsets);
    for (let index = 0; index < offsets; index++) {
      const bucket = relativeBucket(index - length + 1);
      for (let head = 0; head < this.heads; head++) {
        values[head * offsets + index] = this.table[bucket * this.heads + head] ?? Number.NaN;
      }
    }
    await device.upload(this.expanded, new Uint8Array(values.buffer));
  }
}
