import { firstAfter, type Item, type Line, type Row } from "./rows.js";

/** What part of the timeline is shown, in tenths of a microsecond. */
export interface Window {
  readonly from: number;
  readonly to: number;
}

/** Room for the ranks' names. */
export const MARGIN = 62;

/** Colours of the page's style, as they are now. */
function colours(canvas: HTMLCanvasElement) {
  const style = getComputedStyle(canvas);
  return (name: string) => style.getPropertyValue(`--${name}`).trim();
}

/** A length of time as people say it: `12.3 µs`, `4.50 ms`, `2.10 s`. */
export function duration(tenths: number): string {
  const microseconds = tenths / 10;
  if (Math.abs(microseconds) < 1e3) return `${microseconds.toFixed(1)} µs`;
  return microseconds < 1e6 ? `${(microseconds / 1e3).toFixed(2)} ms` : `${(microseconds / 1e6).toFixed(2)} s`;
}

/** A time on the axis, with as many digits as its neighbours need. */
function mark(tenths: number, step: number): string {
  const [unit, size] =
    step >= 1e7 ? (["s", 1e7] as const) : step >= 1e3 ? (["ms", 1e4] as const) : (["µs", 10] as const);
  return `${(tenths / size).toFixed(Math.max(0, -Math.floor(Math.log10(step / size) + 1e-9)))} ${unit}`;
}

/** Draws the shown part: rows, the chosen kernel, and the messages of what is chosen; of all where there are few. */
export function draw(
  canvas: HTMLCanvasElement,
  rows: readonly Row[],
  lines: readonly Line[],
  { from, to }: Window,
  chosen: Item | undefined,
): void {
  const context = canvas.getContext("2d");
  if (!context) return;
  const { devicePixelRatio: ratio } = window;
  const [width, height] = [canvas.width / ratio, canvas.height / ratio];
  const colour = colours(canvas);
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  context.textBaseline = "middle";
  const scale = (width - MARGIN) / (to - from);
  const x = (time: number) => MARGIN + (time - from) * scale;
  const hatches = new Map([
    ["communication", hatch(context, colour("hatch"), "slope")],
    ["gemm", hatch(context, colour("hatch"), "upright")],
    ["elementwise", hatch(context, colour("hatch"), "dots")],
  ]);

  drawAxis(context, { from, to }, x, height, colour);
  let named = -1;
  for (const row of rows) {
    if (row.rank !== named) {
      named = row.rank;
      context.fillStyle = colour("ink");
      context.font = "600 12.5px system-ui, sans-serif";
      context.fillText(`rank ${row.rank}`, 0, row.top + row.height / 2);
    }
    context.save();
    context.beginPath();
    context.rect(MARGIN, row.top, width - MARGIN, row.height);
    context.clip();
    context.font = "11px system-ui, sans-serif";
    for (let index = firstAfter(row.items, from); index < row.items.length; index++) {
      const item = row.items[index];
      if (!item || item.start > to) break;
      const left = Math.max(x(item.start), MARGIN - 2);
      const right = Math.min(x(item.end), width + 2);
      const wide = Math.max(right - left, 0.75);
      if (row.kernels) drawKernel(context, item, row, left, wide, colour, hatches);
      else drawSpan(context, item, row, left, wide, colour);
      if (item === chosen) {
        context.strokeStyle = colour("ink");
        context.lineWidth = 2;
        context.strokeRect(left + 1, row.top + 1, Math.max(wide - 2, 1), row.height - 2);
      }
    }
    context.restore();
  }
  const seen = lines.filter(({ from: sent, to: awaited }) => sent.item.start < to && awaited.item.end > from);
  const few = seen.length <= 80;
  context.save();
  context.beginPath();
  context.rect(MARGIN, 0, width - MARGIN, height);
  context.clip();
  for (const line of seen) {
    const isOf = chosen !== undefined && (line.from.item === chosen || line.to.item === chosen);
    if (few || isOf) drawArrow(context, line, x, colour(isOf ? "ink" : "soft"), isOf);
  }
  context.restore();
}

type Colour = (name: string) => string;

function drawKernel(
  context: CanvasRenderingContext2D,
  { phase = "", name }: Item,
  row: Row,
  left: number,
  wide: number,
  colour: Colour,
  hatches: ReadonlyMap<string, CanvasPattern | null>,
): void {
  context.fillStyle = colour(phase);
  context.fillRect(left, row.top, wide > 3 ? wide - 0.5 : wide, row.height);
  const pattern = hatches.get(phase);
  if (pattern && wide > 4) {
    context.fillStyle = pattern;
    context.fillRect(left, row.top, wide - 0.5, row.height);
  }
  if (row.height >= 14) label(context, name, left, wide, row, colour("on"));
}

function drawSpan(
  context: CanvasRenderingContext2D,
  { name }: Item,
  row: Row,
  left: number,
  wide: number,
  colour: Colour,
): void {
  context.fillStyle = colour("line");
  context.fillRect(left, row.top, wide > 2 ? wide - 1 : wide, row.height);
  if (row.height >= 12) label(context, name, left, wide, row, colour("ink"));
}

/** A name, where there is room for all of it. */
function label(
  context: CanvasRenderingContext2D,
  text: string,
  left: number,
  wide: number,
  { top, height }: Row,
  fill: string,
): void {
  if (wide < 24 || context.measureText(text).width > wide - 8) return;
  context.fillStyle = fill;
  context.fillText(text, left + 4, top + height / 2 + 0.5);
}

function drawAxis(
  context: CanvasRenderingContext2D,
  { from, to }: Window,
  x: (time: number) => number,
  height: number,
  colour: Colour,
): void {
  // A mark for each 120 pixels.
  const rough = ((to - from) * 120) / Math.max(120, x(to) - x(from));
  const base = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((times) => times * base).find((each) => each >= rough) ?? 10 * base;
  context.font = "11.5px system-ui, sans-serif";
  for (let time = Math.ceil(from / step) * step; time <= to; time += step) {
    context.fillStyle = colour("line");
    context.fillRect(Math.round(x(time)), 16, 1, height - 16);
    context.fillStyle = colour("soft");
    context.fillText(mark(time, step), Math.round(x(time)) + 3, 9);
  }
}

function drawArrow(
  context: CanvasRenderingContext2D,
  { from, to }: Line,
  x: (time: number) => number,
  colour: string,
  strong: boolean,
): void {
  const start = { x: x((from.item.start + from.item.end) / 2), y: from.row.top + from.row.height / 2 };
  const arrival = Math.min(Math.max(to.item.start, from.item.end), to.item.end);
  const up = to.row.top < from.row.top;
  const end = { x: x(arrival), y: up ? to.row.top + to.row.height : to.row.top };
  context.strokeStyle = colour;
  context.fillStyle = colour;
  context.globalAlpha = strong ? 1 : 0.45;
  context.lineWidth = strong ? 1.75 : 1;
  context.beginPath();
  context.moveTo(start.x, start.y);
  context.bezierCurveTo(start.x, (start.y + end.y) / 2, end.x, (start.y + end.y) / 2, end.x, end.y);
  context.stroke();
  const tip = up ? 5 : -5;
  context.beginPath();
  context.moveTo(end.x, end.y);
  context.lineTo(end.x - 3, end.y + tip);
  context.lineTo(end.x + 3, end.y + tip);
  context.fill();
  context.globalAlpha = 1;
}

/** What tells kinds of work apart without colour. */
function hatch(
  context: CanvasRenderingContext2D,
  colour: string,
  kind: "slope" | "upright" | "dots",
): CanvasPattern | null {
  const tile = document.createElement("canvas");
  const size = 7;
  [tile.width, tile.height] = [size, size];
  const own = tile.getContext("2d");
  if (!own) return null;
  [own.strokeStyle, own.fillStyle, own.lineWidth] = [colour, colour, 1.6];
  own.beginPath();
  if (kind === "slope") {
    for (const shift of [-size, 0, size]) {
      own.moveTo(shift, size);
      own.lineTo(shift + size, 0);
    }
    own.stroke();
  } else if (kind === "upright") own.fillRect(0, 0, 1, size);
  else {
    own.arc(2, 2, 1, 0, 2 * Math.PI);
    own.fill();
  }
  return context.createPattern(tile, "repeat");
}
