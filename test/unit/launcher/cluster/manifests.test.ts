import { readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { parseAllDocuments } from "yaml";
import { z } from "zod";
import { packageRoot } from "../../../../src/paths.js";
import { faults, published } from "./published.js";

/** The documents of a manifest of a kind. */
function documents(file: string, kind: string): unknown[] {
  const text = readFileSync(join(packageRoot, "examples", "kubernetes", file), "utf8");
  const all = parseAllDocuments(text).map((document): unknown => document.toJS());
  return all.filter((each) => z.object({ kind: z.literal(kind) }).safeParse(each).success);
}

test.each([
  ["indexed-job.yaml", "Job", "batch/v1"],
  ["jobset.yaml", "JobSet", "jobset.x-k8s.io/v1alpha2"],
  ["lws.yaml", "LeaderWorkerSet", "leaderworkerset.x-k8s.io/v1"],
])("%s is a %s as published", (file, kind, apiVersion) => {
  const found = documents(file, kind);
  expect(found).toMatchObject([{ apiVersion }]);
  expect(found.flatMap((each) => faults(each, published(kind), kind))).toEqual([]);
});

test("a field that is misspelt, of another type or missing is found", () => {
  const [job] = documents("indexed-job.yaml", "Job");
  const text = JSON.stringify(job);
  const wrong = (from: string, to: string) => faults(JSON.parse(text.replace(from, to)), published("Job"), "Job");
  expect(wrong('"completions":2', '"completion":2')).toEqual(["Job.spec has no field completion"]);
  expect(wrong('"parallelism":2', '"parallelism":"2"')).toEqual(["Job.spec.parallelism is no integer"]);
  expect(wrong('"name":"DITRUN_JOB_KEY"', '"nam":"DITRUN_JOB_KEY"')).toEqual([
    "Job.spec.template.spec.containers[0].env[0] has no name",
    "Job.spec.template.spec.containers[0].env[0] has no field nam",
  ]);
});
