import { text } from "node:stream/consumers";
import { DitrunError } from "../failure.js";
import { fileFailure } from "../files/file-failure.js";
import { readSecret } from "../launcher/nodes/meeting-file.js";

/** The job's common key, and what it came from. */
export interface JobKey {
  readonly value: string;
  readonly by: string;
}

/**
 * The key that the user gave: --job-key FILE or `-`, DITRUN_JOB_KEY_FILE, DITRUN_JOB_KEY. Never a word of the command line, which
 * everybody on the host can read.
 * @returns undefined where none was given. @throws DitrunError where the file cannot be read, or others can read it.
 */
export async function givenJobKey(
  option: string | undefined,
  { DITRUN_JOB_KEY_FILE, DITRUN_JOB_KEY }: NodeJS.ProcessEnv = process.env,
): Promise<JobKey | undefined> {
  if (option === "-") return { value: (await text(process.stdin)).trim(), by: "--job-key" };
  const file = option ?? (DITRUN_JOB_KEY_FILE || undefined);
  const by = option === undefined ? "DITRUN_JOB_KEY_FILE" : "--job-key";
  if (file !== undefined) return { value: await readKey(file, by), by: `${by} ${file}` };
  return DITRUN_JOB_KEY ? { value: DITRUN_JOB_KEY.trim(), by: "DITRUN_JOB_KEY" } : undefined;
}

async function readKey(file: string, by: string): Promise<string> {
  try {
    return (await readSecret(file)).trim();
  } catch (error) {
    if (error instanceof DitrunError) throw error;
    throw new DitrunError("ERR_JOB_KEY", `${by} ${file} cannot be read: ${fileFailure(error)}.`, { cause: error });
  }
}
