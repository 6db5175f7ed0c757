import { z } from "zod";
import type { TensorData } from "../../formats/safetensors.js";
import { copy } from "../ops/copy.js";
import type { Device } from "../runtime/device.js";
import type { Tap } from "../runtime/tap.js";
import { matrixShape, rowsOf, type Tensor, tensorBytes } from "../runtime/tensor.js";
import type { Store } from "../store.js";

/** Tokens of each layer that are looked at, spread evenly: the whole of it may be gigabytes. */
const SAMPLES = 32;

/** Which tokens a layer's rows are on this rank. */
export interface TokenRange {
  readonly start: number;
  readonly count: number;
  /** Of all ranks. */
  readonly total: number;
}

const headerSchema = z.array(
  z.object({ name: z.string(), columns: z.int(), tokens: z.array(z.int()), offset: z.int() }),
);

interface Sample {
  readonly name: string;
  readonly rows: Tensor;
}

/** Some tokens of the residual stream after each layer, which every layout computes: float32 [tokens, width]. */
export class LayerSamples {
  readonly #samples: Sample[] = [];
  readonly #tokens: readonly number[];

  constructor(
    private readonly device: Device,
    private readonly range: TokenRange,
  ) {
    const { start, count, total } = range;
    const wanted = Math.min(SAMPLES, total);
    const all = Array.from({ length: wanted }, (_, index) => Math.floor(((index + 0.5) * total) / wanted));
    this.#tokens = all.filter((token) => token >= start && token < start + count);
  }

  /** Keeps what it is told of, if it has a row for each token. @param nameOf what a layer is called; undefined where it does not count. */
  tap(slot: string, nameOf: (tapped: string) => string | undefined): Tap {
    let index = 0;
    return (tapped, x) => {
      const name = nameOf(tapped);
      if (name === undefined) return;
      const { rows, columns } = matrixShape(x);
      if (rows !== this.range.count || x.dtype !== "fp32") {
        throw new Error(`${tapped} is ${x.dtype} [${rows}, ${columns}], and this rank has ${this.range.count} tokens.`);
      }
      const kept = this.device.allocatePersistent("fp32", [Math.max(1, this.#tokens.length), columns]);
      this.#tokens.forEach((token, place) => {
        const bytes = tensorBytes("fp32", [1, columns]);
        copy(this.device, rowsOf(kept, place, 1), rowsOf(x, token - this.range.start, 1), bytes);
      });
      this.#samples.push({ name: `layer.${String(index++).padStart(3, "0")}.${slot}.${name}`, rows: kept });
    };
  }

  /** Brings the samples of all ranks together. Every rank calls it. @returns them by name on rank 0, else nothing. */
  async collect(store: Pick<Store, "rank" | "size" | "put" | "get">): Promise<Record<string, TensorData>> {
    const parts: Uint8Array[] = [];
    let offset = 0;
    const header: z.infer<typeof headerSchema> = [];
    for (const { name, rows } of this.#samples) {
      const { columns } = matrixShape(rows);
      const values = (await this.device.download(rows)).subarray(0, 4 * this.#tokens.length * columns);
      header.push({ name, columns, tokens: [...this.#tokens], offset });
      offset += values.length;
      parts.push(values);
    }
    await store.put(`layers/${store.rank}`, new TextEncoder().encode(JSON.stringify(header)));
    await store.put(`layers/${store.rank}/values`, Buffer.concat(parts));
    return store.rank === 0 ? this.#merge(store) : {};
  }

  async #merge(store: Pick<Store, "size" | "get">): Promise<Record<string, TensorData>> {
    /** By name and token; ranks that hold the same tokens hold the same values, and the first counts. */
    const found = new Map<string, Map<number, Uint8Array>>();
    for (let rank = 0; rank < store.size; rank++) {
      const text = new TextDecoder().decode(await store.get(`layers/${rank}`));
      const values = await store.get(`layers/${rank}/values`);
      for (const { name, columns, tokens, offset } of headerSchema.parse(JSON.parse(text))) {
        const rows = found.get(name) ?? new Map<number, Uint8Array>();
        found.set(name, rows);
        tokens.forEach((token, place) => {
          const start = offset + 4 * columns * place;
          if (!rows.has(token)) rows.set(token, values.subarray(start, start + 4 * columns));
        });
      }
    }
    return Object.fromEntries(
      [...found]
        .sort(([a], [b]) => a.localeCompare(b))
        .map(([name, rows]) => {
          const inOrder = [...rows].sort(([a], [b]) => a - b).map(([, row]) => row);
          const data = Buffer.concat(inOrder);
          return [name, { dtype: "F32" as const, shape: [inOrder.length, data.length / 4 / inOrder.length], data }];
        }),
    );
  }
}
