import { expect, test } from "vitest";
import { checkOutputs } from "../../../src/files/apart.js";

const named = (use: "read" | "written", files: Readonly<Record<string, string>>) =>
  Object.entries(files).map(([option, path]) => ({ option, path, use }));

test("options may name one device, but not one file, however it is spelt", async () => {
  await checkOutputs(named("written", { "--json": "/dev/null", "--trace": "/dev/null" }));
  await expect(checkOutputs(named("written", { "--trace": "a", "--json": "./a" }))).rejects.toMatchObject({
    code: "ERR_FILE_SHARED",
    message: "--trace and --json both name ./a: give each a file of its own.",
  });
});

test("an output that another option reads is refused", async () => {
  const files = [...named("read", { "--reference": import.meta.filename }), ...named("written", { "--json": "other" })];
  await checkOutputs(files);
  const over = [...files, ...named("written", { "--trace": import.meta.filename })];
  await expect(checkOutputs(over)).rejects.toMatchObject({
    code: "ERR_FILE_SHARED",
    exitCode: 2,
    message: expect.stringContaining("which --reference reads: choose another file."),
  });
});
