import { defineConfig } from "vitest/config";

/** As for `npm test`, but without its build: run.js has built what a mutant needs. */
export default defineConfig({
  test: {
    root: new URL("../..", import.meta.url).pathname,
    include: ["test/**/*.test.ts"],
    maxWorkers: 2,
    testTimeout: 60_000,
    hookTimeout: 60_000,
  },
});
