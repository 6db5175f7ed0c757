import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { outOfMemoryKills } from "../../../src/launcher/out-of-memory.js";

test("the kernel's count of processes killed for want of memory is read, where there is one", () => {
  const folder = mkdtempSync(join(tmpdir(), "ditrun-vmstat-"));
  const file = join(folder, "vmstat");
  writeFileSync(file, "drop_slab 7\noom_kill 12\nnuma_hit 3\n");
  expect(outOfMemoryKills(file)).toBe(12);
  writeFileSync(file, "drop_slab 7\n");
  expect(outOfMemoryKills(file)).toBeUndefined();
  expect(outOfMemoryKills(join(folder, "none"))).toBeUndefined();
  rmSync(folder, { recursive: true });
});
