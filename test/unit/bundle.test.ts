import { readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { describe, expect, test } from "vitest";
import {
  encoderThread,
  examineEntry,
  packageRoot,
  probeEntry,
  reaperEntry,
  tokenizerThread,
  workerEntry,
} from "../../src/paths.js";

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
describe("a program or a thread is few files, and loads few packages besides", () => {
  test.each([
    ["worker", workerEntry, 12, ["koffi", "zeromq"]],
    ["probe", probeEntry, 12, ["koffi"]],
    ["examine", examineEntry, 2, ["koffi"]],
    ["watchdog", join(dirname(workerEntry), "watchdog-thread.js"), 12, []],
    ["reaper", reaperEntry, 12, []],
    ["tokenizer", tokenizerThread, 24, []],
    ["encoder", encoderThread, 12, []],
  ])("%s", (_, entry, most, packages) => {
    const { files, modules } = loads(entry);
    expect([...modules].sort()).toEqual(packages);
    expect(files.size).toBeLessThanOrEqual(most);
  });

  test("what is taken in comes with its licence", () => {
    const notices = readFileSync(join(packageRoot, "dist", "licenses.txt"), "utf8");
    for (const name of ["zod", "yaml", "cli-table3", "yauzl", "pickleparser"]) {
      expect(notices).toMatch(new RegExp(`^${name} \\d+\\.\\d+\\.\\d+ \\(.+\\)$`, "m"));
    }
    expect(notices).toContain("Permission is hereby granted, free of charge");
  });
});
