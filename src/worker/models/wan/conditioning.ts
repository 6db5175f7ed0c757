import type { WanModel } from "../../../models/schema.js";
import type { Context } from "../../comm/context.js";
import { type Linear, type Loader, loadColumnLinear } from "../../layers/linear.js";
import { activate, addVector } from "../../ops/elementwise.js";
import type { Tap } from "../../runtime/tap.js";
import { partOf, rowsOf, type Tensor, tensor } from "../../runtime/tensor.js";
import { keepTensor } from "../../weights/kept.js";

/** What the time step says to the blocks and the head: shifts, scales and gates, all float32 vectors of the width. */
export interface Modulation {
  /** Of a block: shift, scale, gate before self-attention, then shift, scale, gate before the feed-forward net. */
  ofBlock(index: number): readonly Tensor[];
  readonly head: { readonly shift: Tensor; readonly scale: Tensor };
}

/** [cos(t f_0) …, sin(t f_0) …], f_j = 10000^(-j / (w/2)), in float64, rounded to float32 (wan/modules/model.py). */
export function timeAngles(t: number, width: number): Float32Array {
  const half = width / 2;
  return Float32Array.from({ length: width }, (_, i) => {
    const angle = t * 10000 ** (-(i % half) / half);
    return i < half ? Math.cos(angle) : Math.sin(angle);
  });
}

/**
 * The time step's path: its sinusoidal embedding, an MLP e, a projection of silu(e) to six vectors, and each block's own
 * modulation added to them (the head's to e). In float32 throughout, as in the published code.
 */
export class Conditioning {
  private constructor(
    private readonly context: Context,
    private readonly model: WanModel,
    private readonly angles: Tensor,
    private readonly mlp: readonly [Linear, Linear],
    private readonly projection: Linear,
    /** [layers, 6 · width] and [2, width]: what was learned for each block and for the head. */
    private readonly tables: { readonly blocks: Tensor; readonly head: Tensor },
  ) {}

  static async load(loader: Loader, model: WanModel): Promise<Conditioning> {
    const { device } = loader.context;
    const { width, freqDim, layers } = model;
    const linear = (path: string, inFeatures: number, outFeatures: number) =>
      loadColumnLinear(loader, { path, inFeatures, outFeatures, inFloat32: true });
    const loadTable = (name: string, vectors: number, out: Tensor) =>
      loader.source.load(
        { name, shape: [1, vectors, width], init: { kind: "normal", std: width ** -0.5 } },
        { rows: [{ start: 0, count: 1 }], columns: { start: 0, count: vectors * width } },
        out,
      );
    const blocks = await keepTensor(loader, "blocks.modulation", async () => {
      const tables = device.allocatePersistent("fp32", [layers, 6 * width]);
      for (let index = 0; index < layers; index++) {
        await loadTable(`blocks.${index}.modulation`, 6, rowsOf(tables, index, 1));
      }
      return tables;
    });
    const head = await keepTensor(loader, "head.modulation", async () => {
      const table = device.allocatePersistent("fp32", [2, width]);
      await loadTable("head.modulation", 2, tensor(table.address, "fp32", [1, 2 * width]));
      return table;
    });
    return new Conditioning(
      loader.context,
      model,
      device.allocatePersistent("fp32", [1, freqDim]),
      [await linear("time_embedding.0", freqDim, width), await linear("time_embedding.2", width, width)],
      await linear("time_projection.1", width, 6 * width),
      { blocks, head },
    );
  }

  /** The time step of the forwards to come, captured ones too. */
  async setTime(t: number): Promise<void> {
    await this.context.device.upload(this.angles, new Uint8Array(timeAngles(t, this.model.freqDim).buffer));
  }

  forward(tap: Tap): Modulation {
    const { device } = this.context;
    const { width, layers } = this.model;
    const blocks = device.allocate("fp32", [layers, 6, width]);
    const head = device.allocate("fp32", [2, width]);
    device.arena.scope(() => {
      const hidden = this.mlp[0].forward(this.angles, { activation: "silu" });
      const e = this.mlp[1].forward(hidden); // [1, width]
      tap("time_embedding", e);
      addVector(device, head, this.tables.head, e);
      activate(device, hidden, e, "silu");
      const six = this.projection.forward(hidden); // [1, 6 · width]
      tap("time_projection", six);
      addVector(device, blocks, this.tables.blocks, six);
    });
    return {
      ofBlock: (index) => Array.from({ length: 6 }, (_, vector) => rowsOf(partOf(blocks, index), vector, 1)),
      head: { shift: rowsOf(head, 0, 1), scale: rowsOf(head, 1, 1) },
    };
  }
}
