import { readFileSync } from "node:fs";
import { join } from "node:path";
import { packageRoot } from "./paths.js";

/** The version in package.json. */
export function packageVersion(): string {
  const document: unknown = JSON.parse(readFileSync(join(packageRoot, "package.json"), "utf8"));
  // Without a schema: ditrun --version and --help load nothing that they can do without.
  if (
    typeof document === "object" &&
    document !== null &&
    "version" in document &&
    typeof document.version === "string"
  )
    return document.version;
  throw new Error("package.json has no version.");
}
