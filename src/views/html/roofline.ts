import type { KernelTotal, Phase } from "../../protocol/results.js";
import { counted } from "../../text.js";
import { figures, threeDigits } from "../figures.js";
import { html, type Markup } from "./markup.js";

/** Of a device: TFLOP/s of the narrowest dtype in use, and GB/s. */
export interface Peaks {
  readonly tflops: number | null;
  readonly gigabytesPerSecond: number | null;
}

/** A kernel as a roofline shows it. */
interface Point {
  readonly label: string;
  readonly phase: Phase;
  /** Operations for each byte. */
  readonly intensity: number;
  readonly tflops: number;
  readonly milliseconds: number;
}

const [WIDTH, HEIGHT] = [1000, 380];
const frame = { left: 58, right: 980, top: 16, bottom: 334 };
/** Kernels with a name beside them. */
const NAMED = 4;
const shapes: Readonly<Record<Phase, (x: number, y: number, r: number) => Markup>> = {
  attention: (x, y, r) => html`<circle cx="${x}" cy="${y}" r="${r}" fill="var(--attention)" fill-opacity="0.75"/>`,
  gemm: (x, y, r) =>
    html`<rect x="${x - r}" y="${y - r}" width="${2 * r}" height="${2 * r}" fill="var(--gemm)" fill-opacity="0.75"/>`,
  elementwise: (x, y, r) =>
    html`<path d="M${x} ${y - r}L${x + r} ${y + r}H${x - r}Z" fill="var(--elementwise)" fill-opacity="0.75"/>`,
  communication: (x, y, r) =>
    html`<path d="M${x} ${y - r}L${x + r} ${y}L${x} ${y + r}L${x - r} ${y}Z" fill="var(--communication)" fill-opacity="0.75"/>`,
};

export function pointsOf(kernels: readonly KernelTotal[]): Point[] {
  return kernels
    .filter(({ flops, bytes, milliseconds }) => flops > 0 && bytes > 0 && milliseconds > 0)
    .map(({ name, shape, phase, flops, bytes, milliseconds }) => ({
      ...{ label: `${name} ${shape}`.trimEnd(), phase, milliseconds },
      ...{ intensity: flops / bytes, tflops: flops / (milliseconds * 1e9) },
    }));
}

const decades = (least: number, most: number) => {
  const from = Math.floor(Math.log10(least));
  const to = Math.max(from + 1, Math.ceil(Math.log10(most)));
  return Array.from({ length: to - from + 1 }, (_, index) => from + index);
};
const power = (exponent: number) =>
  exponent >= 0 && exponent < 4
    ? String(10 ** exponent)
    : exponent < 0 && exponent > -4
      ? (10 ** exponent).toFixed(-exponent)
      : `1e${exponent}`;

/** Kernels with operations, by operations for each byte and by speed, under what the device allows (Williams et al., 2009). Undefined without any. */
export function rooflineChart(
  kernels: readonly KernelTotal[],
  { tflops, gigabytesPerSecond }: Peaks,
): Markup | undefined {
  const points = pointsOf(kernels);
  if (points.length === 0) return undefined;
  const ridge = tflops !== null && gigabytesPerSecond !== null ? (tflops * 1e3) / gigabytesPerSecond : undefined;
  const xs = decades(
    Math.min(...points.map(({ intensity }) => intensity), ridge ?? Number.POSITIVE_INFINITY),
    Math.max(...points.map(({ intensity }) => intensity), ridge ?? 0),
  );
  const ys = decades(
    Math.min(...points.map((point) => point.tflops)),
    Math.max(...points.map((point) => point.tflops), tflops ?? 0),
  );
  const place = (value: number, marks: readonly number[], from: number, to: number) => {
    const [first = 0, last = 1] = [marks[0], marks.at(-1)];
    return Math.round((from + ((Math.log10(value) - first) / (last - first)) * (to - from)) * 10) / 10;
  };
  const x = (intensity: number) => place(intensity, xs, frame.left, frame.right);
  const y = (speed: number) => place(speed, ys, frame.bottom, frame.top);
  const longest = Math.max(...points.map(({ milliseconds }) => milliseconds));
  const bySize = points.toSorted((a, b) => b.milliseconds - a.milliseconds);
  const roof =
    ridge !== undefined && tflops !== null && gigabytesPerSecond !== null
      ? roofPath(xs, { ridge, tflops, gigabytesPerSecond }, x, y, 10 ** (ys[0] ?? 0))
      : undefined;
  const named = namesOf(
    bySize.map(({ label, intensity, tflops: speed }) => ({ label, at: x(intensity), line: y(speed) + 4 })),
  );
  return html`<div class="wide" tabindex="0"><svg viewBox="0 0 ${WIDTH} ${HEIGHT}" role="img" aria-label="Roofline: ${counted(points.length, "kernel")} by operations for each byte and TFLOP/s">
${xs.map((mark) => html`<line class="axis" x1="${x(10 ** mark)}" x2="${x(10 ** mark)}" y1="${frame.top}" y2="${frame.bottom}"/><text x="${x(10 ** mark)}" y="${frame.bottom + 18}" text-anchor="middle">${power(mark)}</text>`)}
${ys.map((mark) => html`<line class="axis" x1="${frame.left}" x2="${frame.right}" y1="${y(10 ** mark)}" y2="${y(10 ** mark)}"/><text x="${frame.left - 8}" y="${y(10 ** mark) + 4}" text-anchor="end">${power(mark)}</text>`)}
<text x="${(frame.left + frame.right) / 2}" y="${HEIGHT - 8}" text-anchor="middle">operations for each byte</text>
<text x="14" y="${(frame.top + frame.bottom) / 2}" text-anchor="middle" transform="rotate(-90 14 ${(frame.top + frame.bottom) / 2})">TFLOP/s</text>
${roof}
${bySize.map(
  ({ label, phase, intensity, tflops: speed, milliseconds }) =>
    html`<g>${shapes[phase](x(intensity), y(speed), Math.round((4 + 7 * Math.sqrt(milliseconds / longest)) * 10) / 10)}<title>${label}: ${figures(milliseconds)} ms, ${threeDigits(speed)} TFLOP/s</title></g>`,
)}
${named}
</svg></div>`;
}

function roofPath(
  xs: readonly number[],
  { ridge, tflops, gigabytesPerSecond }: { ridge: number; tflops: number; gigabytesPerSecond: number },
  x: (intensity: number) => number,
  y: (speed: number) => number,
  lowest: number,
): Markup {
  const [first = 0, last = 1] = [xs[0], xs.at(-1)];
  const bound = (intensity: number) => (intensity * gigabytesPerSecond) / 1e3;
  const start = Math.max(10 ** first, (lowest * 1e3) / gigabytesPerSecond);
  return html`<path class="roof" d="M${x(start)} ${y(bound(start))}L${x(ridge)} ${y(tflops)}H${x(10 ** last)}"/>
<text class="name" x="${x(10 ** last) - 6}" y="${y(tflops) - 7}" text-anchor="end">${figures(tflops)} TFLOP/s, ${figures(gigabytesPerSecond)} GB/s</text>`;
}

/** Names of the first points, as far as none lies over another. */
function namesOf(points: readonly { readonly label: string; readonly at: number; readonly line: number }[]): Markup[] {
  const lines: number[] = [];
  const free = points.filter(({ line }) => {
    const isFree = lines.length < NAMED && lines.every((other) => Math.abs(other - line) > 15);
    if (isFree) lines.push(line);
    return isFree;
  });
  return free.map(({ label, at, line }) => {
    const [place, anchor] = at > 700 ? [at - 14, "end"] : [at + 14, "start"];
    return html`<text class="name" x="${place}" y="${line}" text-anchor="${anchor}">${label}</text>`;
  });
}
