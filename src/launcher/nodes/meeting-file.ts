import { randomBytes } from "node:crypto";
import { mkdir, open, rename, rm } from "node:fs/promises";
import { dirname } from "node:path";
import { z } from "zod";
import { DitrunError } from "../../failure.js";
import { fileFailure } from "../../files/file-failure.js";

const OWNER_ONLY = 0o600;
/** Far more than a meeting has. */
const MOST_BYTES = 64 * 1024;

const meetingSchema = z.strictObject({
  /** Of node 0, the most likely first. */
  addresses: z.array(z.string().max(255)).min(1).max(64),
  port: z.int().min(1).max(65_535),
  /** The job's key. */
  key: z.string().max(64),
});

/** Where node 0 is met, and with which key: what hosts that share a disk need not be told. */
export type Meeting = z.infer<typeof meetingSchema>;

/** Writes it whole, for this user alone. @throws DitrunError where that cannot be done. */
export async function writeMeeting(path: string, meeting: Meeting): Promise<void> {
  const part = `${path}.${randomBytes(4).toString("hex")}`;
  try {
    await mkdir(dirname(path), { recursive: true, mode: 0o700 });
    const file = await open(part, "wx", OWNER_ONLY);
    try {
      await file.writeFile(JSON.stringify(meeting));
      await file.sync();
    } finally {
      await file.close();
    }
    await rename(part, path);
  } catch (error) {
    await rm(part, { force: true }).catch(() => undefined);
    throw new DitrunError(
      "ERR_FILE_WRITE",
      `${path}, where the other hosts look for node 0, cannot be written: ${fileFailure(error)}. Set DITRUN_JOB_KEY on all hosts instead.`,
      { cause: error },
    );
  }
}

/** @throws Error, of one line, where there is none yet; DitrunError where others can read or write it. */
export async function readMeeting(path: string): Promise<Meeting> {
  return meetingSchema.parse(JSON.parse(await readSecret(path)));
}

/**
 * The text of a file that nobody else can read.
 * @throws Error where it cannot be read; DitrunError where it is somebody else's, or others have rights to it.
 */
export async function readSecret(path: string): Promise<string> {
  const file = await open(path, "r");
  try {
    const { mode, uid, size } = await file.stat();
    const others = (mode & 0o077) !== 0;
    const own = process.getuid?.();
    if (others || (uid !== own && uid !== 0)) {
      const why = others ? "others have rights to it" : "it belongs to somebody else";
      throw new DitrunError("ERR_JOB_KEY", `${path} holds a key, but ${why}: make it your own with chmod 600.`);
    }
    if (size > MOST_BYTES) throw new DitrunError("ERR_JOB_KEY", `${path} has ${size} bytes, and so is no key.`);
    return await file.readFile("utf8");
  } finally {
    await file.close();
  }
}
