import { readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { describe, expect, test } from "vitest";
import { probeEntry, workerEntry } from "../../../src/paths.js";

/** What a program of dist/ loads, by itself or later: its own files, and modules by their names. */
function loads(entry: string): { files: Set<string>; modules: Set<string> } {
  const files = new Set<string>([entry]);
  const modules = new Set<string>();
  // A set that grows while it is walked is walked to its new end.
  for (const file of files) {
    for (const [, name = ""] of readFileSync(file, "utf8").matchAll(
      /^(?:import|export|\} from|.*import\().*?"([^"]+)"/gm,
    )) {
      if (name.startsWith(".")) files.add(join(dirname(file), name));
      else if (!name.startsWith("node:")) modules.add(name);
    }
  }
  return { files, modules };
}

// A hundred files, and another hundred of the schema library, took most of the time in which a worker starts.
describe("a worker's programs are few files, and load native modules alone", () => {
  test.each([
    ["worker", workerEntry, ["koffi", "zeromq"]],
    ["probe", probeEntry, ["koffi"]],
    ["watchdog", join(dirname(workerEntry), "watchdog-thread.js"), []],
  ])("%s", (_, entry, native) => {
    const { files, modules } = loads(entry);
    expect([...modules].sort()).toEqual(native);
    expect(files.size).toBeLessThanOrEqual(12);
  });
});
