import type { CreateRequest, ServedModel, Video } from "../schemas.js";

/** What the form holds. Numbers are text as they are typed; an empty one leaves it to the model. */
export interface Draft {
  readonly prompt: string;
  readonly negative: string;
  readonly size: string;
  readonly frames: number;
  readonly steps: string;
  readonly guidance: string;
  readonly shift: string;
  readonly seed: string;
  /** Strength of each LoRA that is used, by its name. */
  readonly loras: Readonly<Record<string, number>>;
}

/** The form of a request that says nothing but its prompt. */
export function emptyDraft({ sizes, num_frames: frames }: ServedModel): Draft {
  const text = { prompt: "", negative: "", steps: "", guidance: "", shift: "", seed: "" };
  return { ...text, size: sizes[0] ?? "", frames, loras: {} };
}

/** A form that was kept, as far as this server still makes such videos. */
export function fitted(draft: Draft, { sizes, max_num_frames: most, num_frames: usual, loras }: ServedModel): Draft {
  const known = Object.entries(draft.loras).filter(([name]) => loras.includes(name));
  return {
    ...draft,
    size: sizes.includes(draft.size) ? draft.size : (sizes[0] ?? ""),
    frames: draft.frames <= most ? draft.frames : usual,
    loras: Object.fromEntries(known),
  };
}

/** The form that asks for a video once more. @param seed whether for the very same one. */
export function draftOf(video: Video, seed = true): Draft {
  const text = (value: number | null) => (value === null ? "" : `${value}`);
  return {
    ...{ prompt: video.prompt, negative: video.negative_prompt ?? "", size: video.size, frames: video.num_frames },
    ...{ steps: text(video.num_inference_steps), guidance: text(video.guidance_scale), shift: text(video.flow_shift) },
    seed: seed ? `${video.seed}` : "",
    loras: Object.fromEntries((video.lora ?? []).map(({ name, scale }) => [name, scale])),
  };
}

/** The request that a form makes. */
export function requestOf(draft: Draft): CreateRequest {
  const number = (text: string) => (text.trim() === "" ? undefined : Number(text));
  const lora = Object.entries(draft.loras).map(([name, scale]) => ({ name, scale }));
  return defined({
    ...{ prompt: draft.prompt.trim(), size: draft.size, num_frames: draft.frames },
    negative_prompt: draft.negative.trim() === "" ? undefined : draft.negative.trim(),
    num_inference_steps: number(draft.steps),
    guidance_scale: number(draft.guidance),
    flow_shift: number(draft.shift),
    // A seed of 64 bits is more than a number holds.
    seed: draft.seed.trim() === "" ? undefined : draft.seed.trim(),
    lora: lora.length === 0 ? undefined : lora,
  });
}

/** Steps of a first try, for models that take many. */
export function draftSteps({ num_inference_steps: usual }: ServedModel): number | undefined {
  return usual === null || usual < 10 ? undefined : Math.round(usual * 0.4);
}

/** Without what is undefined. */
function defined<T extends object>(fields: T): T {
  const copy = { ...fields };
  for (const [name, value] of Object.entries(copy)) if (value === undefined) Reflect.deleteProperty(copy, name);
  return copy;
}
