// What a video of models/wan-tiny shows, from its pixels alone: the twin of scripts/train-tiny/measure.py.
import { type Clip, type Colour, colourNames, colours, type Motion, type Rgb } from "./clips.js";

/** A frame, RGB of 8 bits: [height, width, 3]. */
export interface Frame {
  readonly width: number;
  readonly height: number;
  readonly pixels: Uint8Array;
}

/** A frame's shape: lengths in halves of the frame's shorter side, positions from its middle, y downwards. */
interface Seen {
  readonly colour: Colour;
  readonly background: Colour;
  readonly x: number;
  readonly y: number;
  readonly area: number;
}

/** Distances of colours are in values from -1 to 1, as the model has them. */
const distance = (a: Rgb, b: Rgb) => Math.hypot(a[0] - b[0], a[1] - b[1], a[2] - b[2]) / 127.5;

function at({ width, pixels }: Frame, x: number, y: number): Rgb {
  const start = 3 * (y * width + x);
  return [pixels[start] ?? Number.NaN, pixels[start + 1] ?? Number.NaN, pixels[start + 2] ?? Number.NaN];
}

function median(values: readonly Rgb[]): Rgb {
  const middle = (channel: 0 | 1 | 2) =>
    values.map((rgb) => rgb[channel]).sort((a, b) => a - b)[(values.length - 1) >> 1] ?? Number.NaN;
  return [middle(0), middle(1), middle(2)];
}

function nearestColour(rgb: Rgb): Colour {
  const nearer = (best: Colour, name: Colour) =>
    distance(colours[name], rgb) < distance(colours[best], rgb) ? name : best;
  return colourNames.reduce(nearer, "red");
}

/** The colour along the border, and the pixels that are far from it. */
function split(frame: Frame): { around: Rgb; inside: (readonly [x: number, y: number])[] } {
  const { width, height } = frame;
  const columns = Array.from({ length: width }, (_, x) => x);
  const rows = Array.from({ length: height }, (_, y) => y);
  const around = median([
    ...columns.flatMap((x) => [at(frame, x, 0), at(frame, x, height - 1)]),
    ...rows.flatMap((y) => [at(frame, 0, y), at(frame, width - 1, y)]),
  ]);
  const apart = rows.flatMap((y) => columns.map((x) => distance(at(frame, x, y), around)));
  const limit = Math.max(0.25, 0.5 * apart.reduce((most, each) => Math.max(most, each), 0));
  const inside = apart.flatMap((each, i) => (each > limit ? [[i % width, Math.floor(i / width)] as const] : []));
  return { around, inside };
}

function look(frame: Frame): Seen | undefined {
  const { width, height } = frame;
  const { around, inside } = split(frame);
  if (inside.length < 8) return undefined;
  const short = Math.min(width, height);
  const mean = (axis: 0 | 1) => inside.reduce((sum, place) => sum + place[axis], 0) / inside.length;
  return {
    colour: nearestColour(median(inside.map(([x, y]) => at(frame, x, y)))),
    background: nearestColour(around),
    x: ((mean(0) + 0.5) * 2 - width) / short,
    y: ((mean(1) + 0.5) * 2 - height) / short,
    area: (inside.length * 4) / short ** 2,
  };
}

function moves(motion: Motion, frames: readonly Seen[], first: Seen, last: Seen): boolean {
  const [dx, dy, growth] = [last.x - first.x, last.y - first.y, last.area / first.area];
  const goes = (along: number, across: number) => along > 0.4 && Math.abs(across) < 0.3;
  const rises = frames.map(({ y }) => y);
  switch (motion) {
    case "right":
      return goes(dx, dy);
    case "left":
      return goes(-dx, dy);
    case "up":
      return goes(-dy, dx);
    case "down":
      return goes(dy, dx);
    case "grow":
      return growth > 1.8;
    case "shrink":
      return growth < 0.55;
    case "bounce":
      return Math.max(...rises) - Math.min(...rises) > 0.3 && Math.abs(dx) < 0.2;
    case "still":
    case "spin":
      return Math.abs(dx) < 0.2 && Math.abs(dy) < 0.2 && growth > 0.6 && growth < 1.6;
  }
}

/** Which of the clip's words a video shows. All frames have one size. */
export function shownBy(
  clip: Clip,
  video: readonly Frame[],
): { colour: boolean; background: boolean; motion: boolean } {
  const frames = video.map(look).filter((seen) => seen !== undefined);
  const [first, middle, last] = [frames[0], frames[frames.length >> 1], frames.at(-1)];
  if (!first || !middle || !last || frames.length < video.length) {
    return { colour: false, background: false, motion: false };
  }
  return {
    colour: middle.colour === clip.colour,
    background: middle.background === clip.background,
    motion: moves(clip.motion, frames, first, last),
  };
}

/** Whether the frame's shape changes from row to row, as one of stripes does. */
export function isStriped(frame: Frame): boolean {
  const { inside } = split(frame);
  const rows = new Map<number, Rgb[]>();
  for (const [x, y] of inside) rows.set(y, [...(rows.get(y) ?? []), at(frame, x, y)]);
  const means = [...rows.values()]
    .filter((row) => row.length >= 3)
    .map((row) => ([0, 1, 2] as const).map((c) => row.reduce((sum, rgb) => sum + rgb[c], 0) / row.length / 127.5));
  if (means.length < 4) return false;
  const variances = ([0, 1, 2] as const).map((c) => {
    const values = means.map((mean) => mean[c] ?? Number.NaN);
    const middle = values.reduce((sum, value) => sum + value) / values.length;
    return values.reduce((sum, value) => sum + (value - middle) ** 2, 0) / (values.length - 1);
  });
  return Math.sqrt(variances.reduce((sum, each) => sum + each)) > 0.35;
}
