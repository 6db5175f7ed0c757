import { type KernelTotal, phaseNames } from "../protocol/results.js";
import { figures } from "./figures.js";
import { type Page, paint, prose } from "./page.js";
import { type Column, formatTable } from "./table.js";

/** Kernels below this share of the forward are one row. */
const SMALLEST_SHARE = 0.002;

type Sums = Omit<KernelTotal, "name" | "shape" | "phase">;

function sumOf(kernels: readonly KernelTotal[]): Sums {
  const none: Sums = { launches: 0, milliseconds: 0, flops: 0, bytes: 0, roofMs: 0 };
  return kernels.reduce(
    (sum, kernel) => ({
      launches: sum.launches + kernel.launches,
      milliseconds: sum.milliseconds + kernel.milliseconds,
      flops: sum.flops + kernel.flops,
      bytes: sum.bytes + kernel.bytes,
      roofMs: sum.roofMs === null || kernel.roofMs === null ? null : sum.roofMs + kernel.roofMs,
    }),
    none,
  );
}

interface Row extends Sums {
  readonly name: string;
  /** Of the recorded forward. */
  readonly share: number;
  readonly kind: "phase" | "kernel" | "sum";
}

const rate = (work: number, milliseconds: number, unit: number) =>
  work === 0 || milliseconds === 0 ? "" : figures(work / (milliseconds * unit));
const percent = (share: number) => `${(100 * share).toFixed(1)} %`;
const known = ({ roofMs, milliseconds }: Sums) => roofMs !== null && roofMs > 0 && milliseconds > 0;

const columns: readonly Column<Row>[] = [
  { head: "kernel and shape", short: "kernel", align: "left", cell: ({ name }) => name },
  { head: "launches", short: "n", cell: ({ launches }) => (launches === 0 ? "" : String(launches)) },
  { head: "ms", cell: ({ milliseconds }) => figures(milliseconds) },
  { head: "of all", drop: 2, cell: ({ share }) => percent(share) },
  { head: "TFLOP/s", cell: ({ flops, milliseconds }) => rate(flops, milliseconds, 1e9) },
  { head: "GB/s", cell: ({ bytes, milliseconds }) => rate(bytes, milliseconds, 1e6) },
  { head: "ms at peak", short: "at peak", drop: 1, cell: (row) => (known(row) ? figures(row.roofMs ?? 0) : "") },
  { head: "of peak", cell: (row) => (known(row) ? percent((row.roofMs ?? 0) / row.milliseconds) : "") },
];

/**
 * A rank's recorded forward by kernel, against the device's peaks (roofline): a row for each phase, as the profile's table has it,
 * for each kernel and shape, for the time in which nothing ran, and for all of it.
 */
export function kernelTable(
  page: Page,
  { rank, kernels, recordedMs }: { rank: number; kernels: readonly KernelTotal[]; recordedMs: number },
): string {
  const all = sumOf(kernels);
  const whole = Math.max(recordedMs, all.milliseconds);
  const row = (kind: Row["kind"], name: string, sums: Sums): Row => ({
    ...sums,
    kind,
    name: kind === "kernel" ? `  ${name}` : paint(page, "bold", name),
    share: whole === 0 ? 0 : sums.milliseconds / whole,
  });
  const rows = phaseNames.flatMap((phase) => {
    const own = kernels.filter((kernel) => kernel.phase === phase);
    if (own.length === 0) return [];
    const shown = own.filter(({ milliseconds }) => milliseconds >= SMALLEST_SHARE * all.milliseconds);
    const rest = own.filter((kernel) => !shown.includes(kernel));
    return [
      row("phase", phase, sumOf(own)),
      ...shown.map((kernel) => row("kernel", `${kernel.name} ${kernel.shape}`.trimEnd(), kernel)),
      ...(rest.length > 0 ? [row("kernel", `${rest.length} smaller`, sumOf(rest))] : []),
    ];
  });
  const idle = { launches: 0, milliseconds: whole - all.milliseconds, flops: 0, bytes: 0, roofMs: 0 };
  return [
    prose(page, `The same forward on rank ${rank} by kernel, on the compute stream`),
    formatTable(page, columns, [
      ...rows,
      row("sum", "idle", idle),
      row("sum", "forward", { ...all, milliseconds: whole }),
    ]),
  ].join("\n");
}
