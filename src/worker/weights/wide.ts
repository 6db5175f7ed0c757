import type { Range } from "../comm/shares.js";
import type { Init, Parameter } from "./parameter.js";

/** Some rows of a parameter, or one column of them, and how their elements are drawn. */
export interface Band {
  readonly rows: Range;
  /** Of the whole rows if absent. */
  readonly column?: number;
  readonly init: Init;
}

/** Layers that tensor parallelism splits by row, and what computes queries, keys and values. */
const rowSplit = /\.(proj|mlp\.2|o|ffn\.2)\.(weight|bias)$/;
const attentionInput = /\.(qkv|self_attn\.[qkv]|cross_attn\.[qkv])\.weight$/;
const qkNorm = /\.norm_[qk]\.weight$/;

/** Pieces of a weight's rows, each with a gain of its own. */
const GAINS = 16;
/** Any tp up to this that divides a row gives each rank one of a row's largest elements. */
const MOST_TP = 8;
/** Blocks of the model that the numbers below were chosen with, dit-tiny. */
const BLOCKS = 6;

/**
 * Random numbers for checks, in place of a new model's: each part of the model moves the output by far more than rounding does,
 * so that a part that is broken shows. In a new model attention is nearly the mean of all values, whatever the keys are.
 * - Queries and keys are longer: softmax is uneven, so it matters which keys a rank sees, and their scale.
 * - Keys have an offset in common, larger than their spread: it matters by which mean e4m3 smooths them.
 * - Gates are around 1.
 * - Biases are half as large as what they are added to; weights of norms differ from 1, their biases from 0.
 * - Rows of a weight have gains from 0.5 to 1.5, so that a row's scale in e4m3 does not do for another row.
 * - What all tokens have in common (label, modulation) is small, and what the pixels add is large: tokens differ.
 * - What a block adds to the residual stream shrinks with the number of blocks beyond six. A fault is in all blocks and adds up
 *   with their number, rounding with its square root: neither grows with the depth.
 * - In layers that are split by row, elements of every share are as large as the largest of the row. So a share has the scale of
 *   the whole row in e4m3, and weights are rounded alike in all layouts: what is left is rounding of activations.
 * @param blocks of the model.
 * @returns what to draw, one over the other.
 */
export function wideBands({ name, shape, init }: Parameter, blocks: number): Band[] {
  const rows = shape[0] ?? 1;
  const whole = { start: 0, count: rows };
  const share = rowSplit.test(name) ? Math.min(1, BLOCKS / blocks) : 1;
  if (init.kind === "constant") {
    return [{ rows: whole, init: uniform(0.5, qkNorm.test(name) ? 1.9 * init.value : init.value) }];
  }
  if (init.kind === "normal") return [{ rows: whole, init: { kind: "normal", std: init.std / 4 } }];
  if (name.endsWith(".qkv.bias")) {
    return [0.5, 3, 0.5].map((bound, part) => ({ rows: piece(rows, 3, part), init: uniform(bound) }));
  }
  if (name === "time_projection.1.bias") {
    // Shift, scale and gate, twice.
    return Array.from({ length: 6 }, (_, part) => ({
      rows: piece(rows, 6, part),
      init: uniform(0.5, part % 3 === 2 ? 1 : 0),
    }));
  }
  if (name.endsWith("self_attn.k.bias")) return [{ rows: whole, init: uniform(6) }];
  if (name.endsWith(".bias")) return [{ rows: whole, init: uniform(share / 2) }];
  if (name.startsWith("patch")) return [{ rows: whole, init: uniform(3 * init.bound) }];
  const gain = share * (attentionInput.test(name) || /\.(proj|o)\.weight$/.test(name) ? 3 : 1);
  const pieces = rows % GAINS === 0 ? GAINS : 1;
  const columns = shape[1] ?? 1;
  const largest = rowSplit.test(name) && columns % MOST_TP === 0;
  return Array.from({ length: pieces }, (_, index) => {
    // 5 and 16 have no factor in common: all gains occur, and neighbours differ.
    const bound = gain * init.bound * (pieces === 1 ? 1 : 0.5 + ((5 * index) % GAINS) / (GAINS - 1));
    const band = { rows: piece(rows, pieces, index), init: uniform(bound) };
    if (!largest) return [band];
    const pinned = Array.from({ length: MOST_TP }, (_, column) => ({
      rows: band.rows,
      column: (column * columns) / MOST_TP,
      init: { kind: "constant", value: column % 2 === 0 ? bound : -bound } as const,
    }));
    return [band, ...pinned];
  }).flat();
}

const uniform = (bound: number, around = 0): Init => ({ kind: "uniform", bound, around });

const piece = (total: number, pieces: number, index: number): Range => ({
  start: Math.floor((index * total) / pieces),
  count: Math.floor(((index + 1) * total) / pieces) - Math.floor((index * total) / pieces),
});
