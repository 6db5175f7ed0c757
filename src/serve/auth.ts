import { createHash, timingSafeEqual } from "node:crypto";
import { readFile } from "node:fs/promises";
import { isIPv4 } from "node:net";
import { DitrunError } from "../failure.js";
import { fileFailure } from "../files/file-failure.js";

const LEAST_CHARACTERS = 16;

/** Whether only this machine reaches an address or name. */
export function isLoopback(host: string): boolean {
  return host === "localhost" || host === "::1" || host === "[::1]" || (isIPv4(host) && host.startsWith("127."));
}

/**
 * The key that clients must send.
 * @param file holds it, in its first line. @param variable the key itself, of DITRUN_API_KEY.
 * @returns undefined where there is none, on loopback alone. @throws DitrunError where it is missing, too short or cannot be read.
 */
export async function apiKey(
  host: string,
  file: string | undefined,
  variable: string | undefined,
): Promise<string | undefined> {
  const from = file === undefined ? "DITRUN_API_KEY" : `--api-key-file ${file}`;
  const key = (file === undefined ? variable : await firstLine(file))?.trim();
  if (key === undefined || (key === "" && file === undefined)) {
    if (isLoopback(host)) return undefined;
    throw new DitrunError(
      "ERR_OPTION_CONFLICT",
      `--host ${host} lets other machines in, so a key is needed: give --api-key-file FILE, or set DITRUN_API_KEY.`,
    );
  }
  if (/^[\x21-\x7e]+$/.test(key) && key.length >= LEAST_CHARACTERS) return key;
  throw new DitrunError(
    "ERR_OPTION_VALUE",
    `${from} holds no key: it must be at least ${LEAST_CHARACTERS} printable characters without spaces, as \`ditrun key\` makes.`,
  );
}

async function firstLine(file: string): Promise<string> {
  try {
    return (await readFile(file, "utf8")).split("\n")[0] ?? "";
  } catch (error) {
    throw new DitrunError("ERR_FILE_READ", `--api-key-file ${file} cannot be read: ${fileFailure(error)}.`, {
      cause: error,
    });
  }
}

/** @returns whether an Authorization header brings the key. It takes as long for every wrong one. */
export function doorFor(key: string | undefined): (header: string | undefined) => boolean {
  if (key === undefined) return () => true;
  const hash = (text: string) => createHash("sha256").update(text).digest();
  const wanted = hash(key);
  return (header) => {
    const [, given = ""] = /^Bearer +(\S+) *$/i.exec(header ?? "") ?? [];
    return timingSafeEqual(hash(given), wanted);
  };
}
