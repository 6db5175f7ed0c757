import { escapeControls } from "../failure.js";
import { packageVersion } from "../version.js";
import type { VideoMetadata } from "./video-writer.js";

/** Far more than a text encoder reads. Both texts fit into one argument of a program, 128 KiB, whatever they are made of. */
const MOST_CHARACTERS = 8000;
const MOST_IN_TITLE = 200;

/** What a video tells of how it was made. @param settings stand in the comment, behind the version. */
export function metadataOf(prompt: string, settings: object): VideoMetadata {
  const version = packageVersion();
  return {
    title: start(escapeControls(prompt.replaceAll(/\s+/g, " ").trim()), MOST_IN_TITLE),
    comment: JSON.stringify({ ditrun: version, ...settings }),
    software: `ditrun ${version}`,
  };
}

/** As much of a prompt as a comment has room for. */
export function inComment(text: string): string {
  return start(text, MOST_CHARACTERS);
}

/** The first characters of a text. */
function start(text: string, most: number): string {
  if (text.length <= most) return text;
  const characters = [...text];
  return characters.length <= most ? text : `${characters.slice(0, most).join("")}…`;
}
