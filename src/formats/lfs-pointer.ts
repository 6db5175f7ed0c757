import { basename, dirname } from "node:path";
import { DitrunError } from "../failure.js";

/** Git LFS's own limit on a pointer. Source: https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md */
export const mostPointerBytes = 1024;

/**
 * Refuses what `git clone` leaves in a large file's place where Git LFS is not installed.
 * @param start the file's text, or its first bytes as text. @throws DitrunError with the command that fetches the file itself.
 */
export function refuseLfsPointer(path: string, start: string): void {
  if (!start.startsWith("version https://git-lfs.github.com/spec/")) return;
  throw new DitrunError(
    "ERR_LFS_POINTER",
    `${path} is a Git LFS pointer, not the file itself: get it with \`cd ${dirname(path)} && git lfs pull --include=${basename(path)}\`.`,
  );
}
