import { createHash } from "node:crypto";
import { readFile } from "node:fs/promises";
import { DitrunError } from "../failure.js";
import { fileFailure } from "../files/file-failure.js";

/** The page as it is sent. */
export interface Page {
  readonly html: string;
  readonly headers: Readonly<Record<string, string>>;
}

/**
 * Reads the page, which is one file with its script and style in it. Its policy lets nothing else run, and nothing be asked of another
 * server; pictures and videos may also be data that the page has fetched. @throws DitrunError ERR_FILE_READ
 */
export async function readPage(file: string): Promise<Page> {
  const html = await readFile(file, "utf8").catch((error: unknown) => {
    const message = `The server's page ${file} cannot be read: ${fileFailure(error)}. Install ditrun again.`;
    throw new DitrunError("ERR_FILE_READ", message, { cause: error });
  });
  const policy = [
    "default-src 'none'",
    `script-src ${hashes(html, "script")}`,
    `style-src ${hashes(html, "style")}`,
    "connect-src 'self'",
    "img-src 'self' blob: data:",
    "media-src 'self' blob:",
    "base-uri 'none'",
    "form-action 'none'",
    "frame-ancestors 'none'",
  ];
  const headers = { "content-security-policy": policy.join("; "), "referrer-policy": "no-referrer" };
  return { html, headers };
}

/** Of all elements of this kind, as a policy names them. */
function hashes(html: string, tag: "script" | "style"): string {
  const found = html.matchAll(new RegExp(`<${tag}[^>]*>(.*?)</${tag}>`, "gs"));
  return [...found].map(([, text = ""]) => `'sha256-${createHash("sha256").update(text).digest("base64")}'`).join(" ");
}
