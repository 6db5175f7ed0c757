/** What a video's content may be asked for as, with the file's ending beside its id. OpenAI's thumbnail is WebP, this one JPEG. */
export const variants = {
  video: { ending: ".mp4", type: "video/mp4" },
  thumbnail: { ending: ".thumbnail.jpg", type: "image/jpeg" },
  spritesheet: { ending: ".spritesheet.jpg", type: "image/jpeg" },
} as const;
export type Variant = keyof typeof variants;

export const variantNames: readonly Variant[] = ["video", "thumbnail", "spritesheet"];

/** The variant of this name, undefined where there is none. */
export function variantOf(name: string): Variant | undefined {
  return variantNames.find((each) => each === name);
}

/** The id of the video that a file is of, also of one that was not whole yet; undefined for a file that no server has made. */
export function idOfFile(name: string): string | undefined {
  return /^(video_[0-9a-f]+)\.[\w.-]+$/.exec(name)?.[1];
}
