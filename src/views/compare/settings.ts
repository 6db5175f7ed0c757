/** Something that was chosen, or that stood around, and differs. */
export interface Setting {
  readonly name: string;
  readonly a: string;
  readonly b: string;
}

/** Keys of results that say what was asked for and where it ran; all others are what came of it. */
const asked = [
  ...["command", "model", "plan", "worldSize", "warmup", "iterations", "seed", "weights", "sampling", "loras", "noise"],
  ...[
    "prompt",
    "negativePrompt",
    "deviceKind",
    "deviceName",
    "deviceCount",
    "processors",
    "host",
    "ditrun",
    "environment",
  ],
];
/** Of a video, what was asked for. */
const askedOfVideo = ["width", "height", "frames", "fps", "encoder"];

const shown = (value: unknown): string =>
  value === undefined ? "–" : typeof value === "string" ? value : JSON.stringify(value);
const isMapping = (value: unknown): value is Readonly<Record<string, unknown>> =>
  typeof value === "object" && value !== null && !Array.isArray(value);

/** What two results were given differently, down to the single key: `plan.mesh.cp`. */
export function settingsApart(a: Readonly<Record<string, unknown>>, b: Readonly<Record<string, unknown>>): Setting[] {
  const video = (result: typeof a) => (isMapping(result.video) ? result.video : {});
  return [
    ...asked.flatMap((key) => apart(key, a[key], b[key])),
    ...askedOfVideo.flatMap((key) => apart(`video.${key}`, video(a)[key], video(b)[key])),
  ];
}

function apart(name: string, a: unknown, b: unknown): Setting[] {
  if (isMapping(a) && isMapping(b)) {
    const keys = [...new Set([...Object.keys(a), ...Object.keys(b)])];
    // A plan's name says what its keys say.
    return keys
      .filter((key) => `${name}.${key}` !== "plan.name")
      .flatMap((key) => apart(`${name}.${key}`, a[key], b[key]));
  }
  return shown(a) === shown(b) ? [] : [{ name, a: shown(a), b: shown(b) }];
}
