import { decode } from "../ops/decode.js";
import type { Device } from "../runtime/device.js";
import { dtypeBytes, matrixShape, type Tensor, tensor } from "../runtime/tensor.js";
import type { Part } from "./source.js";

type Range = Part["columns"];

/** What two ranges have in common; nothing where they are apart. */
function common(a: Range, b: Range): Range {
  const start = Math.max(a.start, b.start);
  return { start, count: Math.max(0, Math.min(a.start + a.count, b.start + b.count) - start) };
}

/**
 * out = a part of outer ⊗ inner: row a · rows + i, column b · columns + j is outer[a, b] · inner[i, j], where inner has so many rows and
 * columns. All float32 and contiguous; each product is rounded once.
 */
export function kronecker(device: Device, out: Tensor, outer: Tensor, inner: Tensor, part: Part): void {
  const [blocks, block] = [matrixShape(outer), matrixShape(inner)];
  const width = part.columns.count;
  const bytes = dtypeBytes("fp32");
  let done = 0;
  for (const range of part.rows) {
    for (let a = 0; a < blocks.rows; a++)
      for (let b = 0; b < blocks.columns; b++) {
        const rows = common(range, { start: a * block.rows, count: block.rows });
        const columns = common(part.columns, { start: b * block.columns, count: block.columns });
        if (rows.count === 0 || columns.count === 0) continue;
        const place = (done + rows.start - range.start) * width + columns.start - part.columns.start;
        decode(device, tensor(out.address + place * bytes, "fp32", [rows.count, columns.count], width), {
          ...{ kind: "F32", rowBytes: block.columns * bytes, firstColumn: columns.start - b * block.columns },
          address: inner.address + (rows.start - a * block.rows) * block.columns * bytes,
          scale: tensor(outer.address + (a * blocks.columns + b) * bytes, "fp32", [1]),
        });
      }
    done += range.count;
  }
}
