import type { Video } from "../schemas.js";
import { draftOf, requestOf } from "./draft.js";

/** A word for a shell, in quotes where it needs them. Characters that steer a terminal are written as their numbers: pasted, they would act. */
export function quoted(word: string): string {
  if (/^[\w./:=,+-]+$/.test(word)) return word;
  if (!/\p{Cc}/u.test(word)) return `'${word.replaceAll("'", "'\\''")}'`;
  return `$'${word.replace(/[\\']/g, "\\$&").replace(/\p{Cc}/gu, numbered)}'`;
}

const numbered = (character: string) => `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`;

/** The command that makes the same video without a server. */
export function commandOf(video: Video): string {
  const options: [name: string, value: string | number | null][] = [
    ["model", video.model],
    ["prompt", video.prompt],
    ["negative-prompt", video.negative_prompt],
    ["size", video.size.replace("x", "*")],
    ["frames", video.num_frames],
    ["steps", video.num_inference_steps],
    ["shift", video.flow_shift],
    ["guide-scale", scalesOf(video)],
    ["fps", video.fps],
    ["seed", video.seed],
  ];
  const loras = (video.lora ?? []).map(({ name, scale }) => ["lora", `${name}.safetensors:${scale}`] as const);
  const loras2 = (video.lora_2 ?? []).map(({ name, scale }) => ["lora-2", `${name}.safetensors:${scale}`] as const);
  const words = [...options, ...loras, ...loras2].flatMap(([name, value]) =>
    value === null ? [] : [`--${name} ${quoted(`${value}`)}`],
  );
  return `ditrun wan generate ${words.join(" ")} --out video.mp4`;
}

function scalesOf({ guidance_scale, guidance_scale_2 }: Video): string | number | null {
  return guidance_scale_2 === null || guidance_scale === null
    ? guidance_scale
    : `${guidance_scale_2},${guidance_scale}`;
}

/** The call that asks this server for the same video. @param withKey the key itself stays in the environment. */
export function curlOf(video: Video, origin: string, withKey: boolean): string {
  const request = { ...requestOf(draftOf(video)), fps: video.fps };
  const headers = [
    "-H 'content-type: application/json'",
    ...(withKey ? ['-H "authorization: Bearer $DITRUN_API_KEY"'] : []),
  ];
  return `curl ${quoted(`${origin}/v1/videos`)} ${headers.join(" ")} -d ${quoted(JSON.stringify(request).replace(/\p{Cc}/gu, numbered))}`;
}
