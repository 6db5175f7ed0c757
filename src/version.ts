import { readFileSync, statSync } from "node:fs";
import { isAbsolute, join } from "node:path";
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

/** The commit that is checked out where ditrun runs from a clone; null elsewhere. @param root of the package. */
export function packageCommit(root = packageRoot): string | null {
  try {
    const git = gitFolder(root);
    const head = read(join(git, "HEAD"));
    const [, ref] = /^ref: (.+)$/.exec(head) ?? [];
    return commitIn(ref === undefined ? head : refIn(git, ref));
  } catch {
    return null;
  }
}

const read = (file: string) => readFileSync(file, "utf8").trim();

/** A worktree has a file in place of the folder (gitrepository-layout(5)). */
function gitFolder(root: string): string {
  const path = join(root, ".git");
  if (statSync(path).isDirectory()) return path;
  const [, folder = ""] = /^gitdir: (.+)$/.exec(read(path)) ?? [];
  return isAbsolute(folder) ? folder : join(root, folder);
}

/** What a ref says: in its own file, or among the packed ones; those of a worktree are shared with its repository. */
function refIn(git: string, ref: string): string {
  const shared = (() => {
    try {
      const folder = read(join(git, "commondir"));
      return isAbsolute(folder) ? folder : join(git, folder);
    } catch {
      return git;
    }
  })();
  try {
    return read(join(shared, ref));
  } catch {
    const packed = read(join(shared, "packed-refs")).split("\n");
    return packed.find((line) => line.endsWith(` ${ref}`))?.split(" ")[0] ?? "";
  }
}

function commitIn(text: string): string | null {
  return /^[0-9a-f]{40,64}$/.test(text) ? text : null;
}
