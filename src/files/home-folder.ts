import { homedir } from "node:os";
import { DitrunError } from "../failure.js";

/**
 * The user's home folder.
 * @param instead a variable that names another place. @throws DitrunError where HOME is not set and the user is not in /etc/passwd.
 */
export function homeFolder(instead?: string): string {
  try {
    return homedir();
  } catch {
    const otherwise = instead === undefined ? "give the whole path" : `set ${instead} to a folder`;
    throw new DitrunError(
      "ERR_FOLDER",
      `The home folder is not known: HOME is not set, and this user has no entry in /etc/passwd; ${otherwise}.`,
    );
  }
}
