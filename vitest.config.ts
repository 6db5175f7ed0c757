import { defineConfig } from "vitest/config";

/** Tests of values alone: they start no process, and leave the one that they run in as it was. */
const values = ["docs", "files", "formats", "models", "plan", "protocol", "sampling", "views", "worker"];
const together = [`test/unit/{${values}}/**/*.test.ts`, "test/{kernels,layers}/**/*.test.ts"];

export default defineConfig({
  test: {
    // Real worker processes share the machine's cores: files run two at a time, tests in a file one by one.
    maxWorkers: 2,
    testTimeout: 60_000,
    hookTimeout: 60_000,
    globalSetup: ["test/build.ts"],
    projects: [
      { extends: true, test: { name: "jobs", include: ["test/**/*.test.ts"], exclude: together } },
      // One process for many files: starting it and loading the schema library cost more than most of the tests.
      { extends: true, test: { name: "values", include: together, isolate: false } },
    ],
  },
});
