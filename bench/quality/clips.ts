// The words that models/wan-tiny learned to show, and which of their combinations it never saw: scripts/train-tiny/clips.py.

/** In the order that decides which combinations are held out. */
export const colourNames = [
  ...(["red", "orange", "yellow", "green", "cyan", "blue"] as const),
  ...(["purple", "pink", "brown", "black", "gray", "white"] as const),
] as const;
export type Colour = (typeof colourNames)[number];

/** RGB of 8 bits. */
export type Rgb = readonly [number, number, number];
export const colours: Readonly<Record<Colour, Rgb>> = {
  red: [220, 40, 40],
  orange: [245, 140, 30],
  yellow: [245, 220, 50],
  green: [40, 160, 60],
  cyan: [50, 205, 215],
  blue: [45, 80, 215],
  purple: [130, 50, 170],
  pink: [245, 135, 185],
  brown: [125, 75, 40],
  black: [15, 15, 15],
  gray: [128, 128, 128],
  white: [245, 245, 245],
};

const shapes = ["circle", "square", "triangle", "star", "ring", "cross", "diamond"] as const;

const motionNames = ["right", "left", "up", "down", "grow", "shrink", "still", "spin", "bounce"] as const;
export type Motion = (typeof motionNames)[number];

/** How a prompt says each. */
const said: Readonly<Record<Motion, string>> = {
  right: "moves right",
  left: "moves left",
  up: "moves up",
  down: "moves down",
  grow: "grows",
  shrink: "shrinks",
  still: "stands still",
  spin: "spins",
  bounce: "bounces",
};

/** What a video should show. */
export interface Clip {
  readonly colour: Colour;
  readonly shape: (typeof shapes)[number];
  readonly motion: Motion;
  readonly background: Colour;
}

/** Whether no such clip was shown in training: one of ten combinations of the four words. */
export function isHeldOut({ colour, shape, motion, background }: Clip): boolean {
  const [a, b] = [colourNames.indexOf(colour), shapes.indexOf(shape)];
  return (a * 7 + b * 5 + motionNames.indexOf(motion) * 3 + colourNames.indexOf(background)) % 10 === 0;
}

/** `count` of the combinations that were held out, spread evenly over all of them. */
export function heldOutClips(count: number): Clip[] {
  const all = colourNames
    .flatMap((colour) => shapes.map((shape) => ({ colour, shape })))
    .flatMap((clip) => motionNames.map((motion) => ({ ...clip, motion })))
    .flatMap((clip) => colourNames.map((background) => ({ ...clip, background })))
    .filter((clip) => clip.colour !== clip.background && isHeldOut(clip));
  return Array.from({ length: count }, (_, i) => all[Math.floor(((i + 0.5) * all.length) / count)]).filter(
    (clip) => clip !== undefined,
  );
}

/** A sentence for the clip; `pattern` is a word before its colour. */
export function promptOf({ colour, shape, motion, background }: Clip, pattern?: string): string {
  return `A ${pattern === undefined ? "" : `${pattern} `}${colour} ${shape} ${said[motion]} on ${background}`;
}
