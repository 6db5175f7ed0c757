/** Plain words for the file-system failures that users meet. */
const reasons: Readonly<Record<string, string>> = {
  ENOENT: "there is no such file or directory",
  ENOTDIR: "a part of the path is not a directory",
  EISDIR: "it is a directory",
  EEXIST: "something else of that name is there",
  ELOOP: "its symbolic links lead in a circle",
  ENAMETOOLONG: "the name is too long",
  EACCES: "permission is denied",
  EPERM: "the operation is not permitted",
  EROFS: "the file system is read-only",
  ENOSPC: "the disk is full; free some space or choose another directory",
  EDQUOT: "the disk quota is used up; free some space or choose another directory",
  EFBIG: "the file would be larger than this file system or the process's limit allows",
  EMFILE: "this process has too many open files; raise `ulimit -n`",
  EIO: "the device reported an input/output error",
};

/** Why a file operation failed, as the end of a sentence: `Cannot read x: ${fileFailure(error)}.` */
export function fileFailure(error: unknown): string {
  if (error instanceof Error) {
    const code = "code" in error && typeof error.code === "string" ? error.code : undefined;
    return (code === undefined ? undefined : reasons[code]) ?? error.message;
  }
  return String(error);
}
