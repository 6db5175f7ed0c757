import { createPrivateKey, createPublicKey, hkdfSync, randomBytes } from "node:crypto";
import { DitrunError } from "../../failure.js";

/** Of X25519 and of CURVE, which are the same. */
const KEY_BYTES = 32;
/** PKCS #8 of an X25519 key, before its 32 bytes (RFC 8410). */
const PKCS8 = Buffer.from("302e020100300506032b656e04220420", "hex");

/** A CURVE key pair in Z85. */
export interface CurvePair {
  readonly publicKey: string;
  readonly secretKey: string;
}

/** A new key of a job, for all of its hosts: 32 random bytes in base64url, 43 characters. */
export function makeJobKey(): string {
  return randomBytes(KEY_BYTES).toString("base64url");
}

/**
 * The two CURVE pairs that a job's key stands for: whoever knows the key knows both, and nobody else does. So each side can show
 * its own and expect the other's.
 * @param by the option or variable that it comes from. @throws DitrunError where it is no key.
 */
export function curvePairs(key: string, by: string): { readonly leader: CurvePair; readonly follower: CurvePair } {
  const bytes = Buffer.from(key.trim(), "base64url");
  if (!/^[\w-]{43}$/.test(key.trim()) || bytes.length !== KEY_BYTES) {
    throw new DitrunError(
      "ERR_JOB_KEY",
      `${by} holds ${key.trim().length} characters that are no job key: make one with ditrun key, and give it to every host.`,
    );
  }
  return { leader: pairOf(bytes, "leader"), follower: pairOf(bytes, "follower") };
}

function pairOf(key: Buffer, role: string): CurvePair {
  const secret = Buffer.from(hkdfSync("sha256", key, "ditrun job key", role, KEY_BYTES));
  const { x = "" } = createPublicKey(
    createPrivateKey({ key: Buffer.concat([PKCS8, secret]), format: "der", type: "pkcs8" }),
  ).export({ format: "jwk" });
  return { publicKey: encodeZ85(Buffer.from(x, "base64url")), secretKey: encodeZ85(secret) };
}

const digits = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#";

/** Z85 (ZeroMQ RFC 32): five characters for four bytes. */
function encodeZ85(bytes: Buffer): string {
  let text = "";
  for (let at = 0; at < bytes.length; at += 4) {
    const value = bytes.readUInt32BE(at);
    for (const power of [85 ** 4, 85 ** 3, 85 ** 2, 85, 1]) text += digits[Math.floor(value / power) % 85];
  }
  return text;
}
