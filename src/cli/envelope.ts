import { hostname } from "node:os";
import { packageCommit, packageVersion } from "../version.js";

/** Of all JSON documents and events together. Keys are added without a new one; it grows when one goes or changes its meaning. */
export const SCHEMA_VERSION = 1;

/** What every JSON document begins with: by what, of what and when it was made. */
export interface Envelope {
  readonly schemaVersion: number;
  /** The commit is that of a clone; null in a release that does not know it. */
  readonly ditrun: { readonly version: string; readonly commit: string | null };
  /** The words of the line, the prompt among them. */
  readonly commandLine: readonly string[];
  /** ISO 8601, UTC. */
  readonly startedAt: string;
  readonly host: string;
}

export function envelopeOf(argv: readonly string[], startedAt = new Date()): Envelope {
  return {
    schemaVersion: SCHEMA_VERSION,
    ditrun: { version: packageVersion(), commit: packageCommit() },
    commandLine: ["ditrun", ...argv],
    startedAt: startedAt.toISOString(),
    host: hostname(),
  };
}
