import { deviceDtypes, distributions } from "../runtime/abi.js";
import type { Device } from "../runtime/device.js";
import { elements, type Tensor } from "../runtime/tensor.js";
import { passOverRows } from "../runtime/work.js";

/** Which numbers of which random tensor: see ditrun_fill_random in kernels/include/ditrun.h. */
export interface RandomOptions {
  readonly seed: bigint;
  /** 32 bits that name the tensor. */
  readonly tensorId: number;
  /** Columns of the full tensor, and where out begins in it. */
  readonly fullColumns: number;
  readonly row0?: number | undefined;
  readonly column0?: number | undefined;
  readonly distribution: keyof typeof distributions;
  /** Half the width of the uniform distribution, the standard deviation of the normal one. */
  readonly amplitude: number;
  /** Is added to each number. */
  readonly offset: number;
}

/** out [rows, columns] = random numbers, the same bits on every device and layout. */
export function random(device: Device, out: Tensor, options: RandomOptions): void {
  const columns = out.shape.at(-1) ?? 1;
  const rows = elements(out.shape) / columns;
  device.launch("fillRandom", {
    phase: "elementwise",
    work: () => passOverRows(out),
    args: () => [
      {
        out: out.address,
        seed: options.seed,
        row0: options.row0 ?? 0,
        column0: options.column0 ?? 0,
        fullColumns: options.fullColumns,
        ldo: out.rowStride,
        rows,
        columns,
        tensorId: options.tensorId,
        distribution: distributions[options.distribution],
        amplitude: options.amplitude,
        offset: options.offset,
        outDtype: deviceDtypes[out.dtype],
        reserved: 0,
      },
    ],
  });
}
