import { basename } from "node:path";
import { DitrunError } from "../failure.js";
import { mostPointerBytes, refuseLfsPointer } from "./lfs-pointer.js";
import { shown } from "./shown.js";

/** Bytes of a file's beginning that refuseStandIns looks at. */
export const startBytes = 512;

const webPage = /^(?:\uFEFF|ï»¿)?\s*<(?:!doctype|html|head|\?xml|error)/i;

/**
 * Refuses what stands in the place of weights where a copy or a download went wrong: a Git LFS pointer, a web page or an answer of
 * a server, a download that was not finished, nothing at all.
 * @param start the file's first bytes, as latin1. @throws DitrunError with what it is, and how to get the file itself.
 */
export function refuseStandIns(path: string, start: string, size: number): void {
  if (size <= mostPointerBytes) refuseLfsPointer(path, start);
  const refuse = (what: string): never => {
    throw new DitrunError("ERR_NOT_WEIGHTS", `${path} ${what}.`);
  };
  if (path.endsWith(".incomplete")) refuse("is a download that has not ended: run the same download again");
  if (size === 0) refuse("is empty: copy or download it again");
  if (webPage.test(start))
    refuse(
      "is a web page that was saved in the place of the file: download the file itself, with `hf download` for instance",
    );
  // What servers answer in place of a file: "Entry not found", {"error": …}.
  if (size <= startBytes && /^[\x20-\x7e\s]+$/.test(start) && !path.endsWith(".json"))
    refuse(
      `holds ${size} bytes of text in the place of weights ("${shown(start.trim())}"): download ${basename(path)} again`,
    );
}
