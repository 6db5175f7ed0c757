import { join } from "node:path";
import type { NamedFile } from "../files/apart.js";
import { modelsDirectory, plansDirectory, tinyCheckpoint } from "../paths.js";
import type { GlobalArguments } from "./options.js";

/** The files that options of every command name, and those of the package, but for that of --json. */
export function globalFiles({ plan, model, logDir }: GlobalArguments): NamedFile[] {
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
