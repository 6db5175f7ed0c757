import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { z } from "zod";

const folder = "test/mutants/list";
const mutantSchema = z.strictObject({
  name: z.string().regex(/^[a-z0-9]+(-[a-z0-9]+)*$/),
  file: z.string(),
  find: z.string().min(1),
  replace: z.string(),
  tests: z.array(z.string()).min(1),
  only: z.string().optional(),
  why: z.string().min(1),
});
const mutants = readdirSync(folder).flatMap((file) =>
  z.array(mutantSchema).parse(JSON.parse(readFileSync(join(folder, file), "utf8"))),
);

test("every mutant still fits its source, and names tests that are there", () => {
  const stale = mutants.flatMap(({ name, file, find, replace, tests, only }) => {
    const times = existsSync(file) ? readFileSync(file, "utf8").split(find).length - 1 : 0;
    const missing = tests.filter((path) => !existsSync(path));
    const found = missing.length > 0 || tests.some((path) => readFileSync(path, "utf8").includes(only ?? ""));
    return [
      ...(times === 1 ? [] : [`${name}: its text is ${times} times in ${file}`]),
      ...(find === replace ? [`${name} changes nothing`] : []),
      ...missing.map((path) => `${name}: there is no ${path}`),
      ...(found ? [] : [`${name}: no test has "${only}" in its name`]),
    ];
  });
  expect(stale).toEqual([]);
});

test("every mutant has a name of its own", () => {
  const names = mutants.map(({ name }) => name);
  expect(names.filter((name, index) => names.indexOf(name) !== index)).toEqual([]);
});
