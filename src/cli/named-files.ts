import { join } from "node:path";
import type { NamedFile } from "../files/apart.js";
import { modelsDirectory, plansDirectory, tinyCheckpoint } from "../paths.js";

/** Options of several commands that name files. */
interface FileOptions {
  readonly plan?: string | undefined;
  readonly model?: string | undefined;
  readonly logDir?: string | undefined;
}

/** The files that options of several commands name, and those of the package, except that of --json. */
export function globalFiles({ plan, model, logDir }: FileOptions): NamedFile[] {
  return [
    ...reads({ "--plan": plan, "--model": model }),
    ...[modelsDirectory, plansDirectory, tinyCheckpoint].flatMap((path) => reads({ "ditrun itself": path })),
    ...writes({ "--log-dir": logDir ? join(logDir, "launcher.log") : undefined }),
  ];
}

/** @param files and folders by the option that names each. */
export function reads(files: Readonly<Record<string, string | undefined>>): NamedFile[] {
  return named(files, "read");
}

/** @param files by the option that names each. */
export function writes(files: Readonly<Record<string, string | undefined>>): NamedFile[] {
  return named(files, "written");
}

function named(files: Readonly<Record<string, string | undefined>>, use: NamedFile["use"]): NamedFile[] {
  return Object.entries(files).flatMap(([option, path]) => (path === undefined ? [] : [{ option, path, use }]));
}
