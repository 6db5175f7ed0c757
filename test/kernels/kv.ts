// Keys and values in e4m3 for the tests of the CPU module: through its quantisers, and back by the layout of the header.
import { at, BF16, check, download, E4M3, F32, poisoned, quantizeKv, raw, sequence, stream, upload } from "./module.js";

export const groupKeys = 128;
export const keyOfPlace = [0, 1, 8, 9, 2, 3, 10, 11, 4, 5, 12, 13, 6, 7, 14, 15];
export const padded = (keys: number) => Math.ceil(keys / groupKeys) * groupKeys;

export interface Shape {
  heads: number;
  headDim: number;
  /** Keys of each block: a rank's. */
  lengths: number[];
  dtype?: number;
}

export const columnsOf = ({ heads, headDim }: Shape) => heads * headDim;
export const keysOf = ({ lengths }: Shape) => lengths.reduce((sum, length) => sum + length);

/** Multiples of 1/64 in [-2, 2): a sum of some thousands of them is exact in float32. */
export const coarse = (count: number, seed: number) =>
  sequence(count, F32, seed, 2).map((x) => Math.floor(x * 64) / 64);

/** As a qkv linear leaves them: k and v beside each other in wider rows, which hold NaN elsewhere. */
export function uploadRows(k: Float64Array, v: Float64Array, columns: number, dtype: number) {
  const rows = k.length / columns;
  const stride = 2 * columns + 5;
  const kv = new Float64Array(rows * stride).fill(Number.NaN);
  for (let row = 0; row < rows; row++) {
    kv.set(k.subarray(row * columns, (row + 1) * columns), row * stride);
    kv.set(v.subarray(row * columns, (row + 1) * columns), row * stride + columns);
  }
  const address = upload(kv, dtype);
  return { k: address, v: address + columns * (dtype === BF16 ? 2 : 4), stride, rows };
}

/** Each block's keys and values [keys, heads, headDim] in e4m3, all smoothed by the mean of all of them. */
export function quantize(k: Float64Array, v: Float64Array, shape: Shape) {
  const { heads, headDim, lengths, dtype = F32 } = shape;
  const columns = columnsOf(shape);
  const statistics = poisoned(lengths.length * 2 * columns, F32);
  const workspace = poisoned(64 * 2 * columns, F32);
  let first = 0;
  const sources = lengths.map((length) => {
    const part = (x: Float64Array) => x.subarray(first * columns, (first + length) * columns);
    const source = uploadRows(part(k), part(v), columns, dtype);
    first += length;
    return source;
  });
  sources.forEach((source, rank) => {
    const own = statistics + rank * 2 * columns * 4;
    const rows = [source.k, source.stride, source.v, source.stride, source.rows];
    check(raw.kvStatistics(own, workspace, ...rows, columns, dtype, stream));
  });
  const vScale = poisoned(columns, F32);
  const blocks = sources.map((source) => {
    const { rows } = source;
    const block = {
      k: poisoned(rows * columns, E4M3),
      v: poisoned(columns * padded(rows), E4M3),
      kScale: poisoned((heads * padded(rows)) / groupKeys, F32),
    };
    const outputs = { outK: block.k, outV: block.v, kScale: block.kScale, vScale };
    const inputs = { k: source.k, v: source.v, ldk: source.stride, ldv: source.stride, statistics };
    const counts = { totalRows: keysOf(shape), rows, heads, headDim, statisticsCount: lengths.length, dtype };
    check(quantizeKv({ ...inputs, ...outputs, ...counts }));
    return { ...block, kStride: columns, vStride: padded(rows), length: rows };
  });
  return { statistics, blocks, vScale };
}

/** What was quantised, scaled back, in the order of the input: keys (smoothed) and values [keys, heads, headDim]. */
export function dequantize({ blocks, vScale }: ReturnType<typeof quantize>, shape: Shape) {
  const { heads, headDim } = shape;
  const columns = columnsOf(shape);
  const ofChannel = download(vScale, columns, F32);
  const k: number[] = [];
  const v: number[] = [];
  for (const block of blocks) {
    const outK = download(block.k, block.length * columns, E4M3);
    const outV = download(block.v, columns * block.vStride, E4M3);
    const groups = block.vStride / groupKeys;
    const kScale = download(block.kScale, heads * groups, F32);
    for (let key = 0; key < block.length; key++) {
      const place = key - (key % 16) + keyOfPlace.indexOf(key % 16);
      for (let c = 0; c < columns; c++) {
        const group = Math.floor(c / headDim) * groups + Math.floor(key / groupKeys);
        k.push(at(outK, key * columns + c) * at(kScale, group));
        v.push(at(outV, c * block.vStride + place) * at(ofChannel, c));
      }
    }
  }
  return { k: Float64Array.from(k), v: Float64Array.from(v) };
}

/** The largest of |x - y| / bound. */
export const worst = (x: Float64Array, y: Float64Array, bound: (index: number) => number) =>
  x.reduce((most, value, i) => {
    const ratio = Math.abs(value - at(y, i)) / bound(i);
    return ratio <= most ? most : ratio;
  }, 0);
