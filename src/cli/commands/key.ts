import { writeFile } from "node:fs/promises";
import { DitrunError, exitCodes } from "../../failure.js";
import { fileFailure } from "../../files/file-failure.js";
import { makeJobKey } from "../../launcher/nodes/job-key.js";
import type { Body } from "../command.js";
import type { KeyOptions } from "../options/key.js";

/** `ditrun key`. */
export const key: Body<KeyOptions> = {
  async run({ out }) {
    const text = `${makeJobKey()}\n`;
    if (out === undefined) process.stdout.write(text);
    else await writeKey(out, text);
    return exitCodes.ok;
  },
};

/** For this user alone; a key that is there may be in use. */
async function writeKey(out: string, text: string): Promise<void> {
  try {
    await writeFile(out, text, { flag: "wx", mode: 0o600 });
  } catch (error) {
    const there = error instanceof Error && "code" in error && error.code === "EEXIST";
    if (there) throw new DitrunError("ERR_FILE_EXISTS", `${out} is there already: remove it, or give another --out.`);
    throw new DitrunError("ERR_FILE_WRITE", `${out} cannot be written: ${fileFailure(error)}.`, { cause: error });
  }
}
