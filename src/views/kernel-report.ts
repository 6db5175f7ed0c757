import { type KernelTotal, phaseNames } from "../protocol/results.js";
import { figures } from "./profile-report.js";
import { formatTable } from "./table.js";

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

/**
 * A rank's kernels against the device's peaks (roofline): a row for each phase, for each kernel and shape, and for all. Phases are
 * those of the profile's table. What the rows do not add up to, of the recorded forward, passed between kernels.
 */
export function kernelTable({ rank, kernels }: { rank: number; kernels: readonly KernelTotal[] }): string {
  const all = sumOf(kernels);
  const head = [`rank ${rank}, compute stream`, "launches", "ms", "TFLOP/s", "GB/s", "ms at peak", "of peak"];
  const row = (name: string, { launches, milliseconds, flops, bytes, roofMs }: Sums) => {
    const rate = (work: number, unit: number) =>
      work === 0 || milliseconds === 0 ? "" : figures(work / (milliseconds * unit));
    const known = roofMs !== null && roofMs > 0 && milliseconds > 0;
    return [
      ...[name, launches === 0 ? "" : String(launches), figures(milliseconds), rate(flops, 1e9), rate(bytes, 1e6)],
      ...(known ? [figures(roofMs), `${((100 * roofMs) / milliseconds).toFixed(1)} %`] : ["", ""]),
    ];
  };
  const rows = phaseNames.flatMap((phase) => {
    const own = kernels.filter((kernel) => kernel.phase === phase);
    if (own.length === 0) return [];
    const shown = own.filter(({ milliseconds }) => milliseconds >= SMALLEST_SHARE * all.milliseconds);
    const rest = own.filter((kernel) => !shown.includes(kernel));
    return [
      row(phase, sumOf(own)),
      ...shown.map((kernel) => row(`  ${kernel.name} ${kernel.shape}`, kernel)),
      ...(rest.length > 0 ? [row(`  ${rest.length} smaller`, sumOf(rest))] : []),
    ];
  });
  return formatTable(head, [...rows, row("all", all)]);
}
