import { bytesInWords } from "../../text.js";
import { defineCheck } from "../check.js";
import { isUnset } from "../environment.js";
import { tryFolder } from "../try-folder.js";

const SCANT_BYTES = 2 ** 28;

/** Where temporary files go, by making a folder there. */
export const temporary = defineCheck({
  ...{ name: "tmp", section: "files", what: "Temporary" },
  look: ({ environment: { TMPDIR } }) => tryFolder(isUnset(TMPDIR) ? "/tmp" : TMPDIR),
  judge({ folder, there, failure, freeBytes }) {
    const wayOut = "Name another folder with TMPDIR.";
    if (!there) return { state: "problem", value: `${folder} does not exist`, wayOut };
    if (failure !== null) return { state: "problem", value: `${folder} cannot be written: ${failure}`, wayOut };
    const value = `${folder}, written, ${bytesInWords(freeBytes)} free`;
    return freeBytes < SCANT_BYTES ? { state: "warning", value, wayOut } : { state: "ok", value };
  },
});
