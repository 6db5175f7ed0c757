import { relative } from "node:path";

/** A path for messages: relative to the working directory where it is inside. */
export function shownPath(file: string): string {
  const short = relative(process.cwd(), file);
  return short.startsWith("..") ? file : short;
}
