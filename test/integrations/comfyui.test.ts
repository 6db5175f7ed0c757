import { spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { execa } from "execa";
import { expect, test } from "vitest";
import { createClient } from "../../src/client/client.js";
import { packageRoot } from "../../src/paths.js";
import { startFakeServer } from "../unit/serve/fake-server.js";

const hasPython = spawnSync("python3", ["-c", "import sys; sys.exit(sys.version_info < (3, 9))"]).status === 0;
if (!hasPython) process.stderr.write("There is no python3 of at least 3.9: the test of ComfyUI's node is skipped.\n");

test.skipIf(!hasPython)(
  "ComfyUI's node makes a video, tells of what fails, and cancels what is interrupted",
  async () => {
    const folder = mkdtempSync(join(tmpdir(), "ditrun-comfyui-"));
    const output = join(folder, "output");
    mkdirSync(output);
    const key = "the-key-of-this-test";
    const server = await startFakeServer(join(folder, "data"), { key });
    try {
      const script = join(packageRoot, "test/integrations/check_comfyui.py");
      const env = { DITRUN_API_KEY: key, PYTHONDONTWRITEBYTECODE: "1" };
      const { stdout } = await execa("python3", [script, server.address, output], { env });
      expect(JSON.parse(stdout)).toEqual([
        {
          file: "ditrun_00001_.mp4",
          shown: { filename: "ditrun_00001_.mp4", subfolder: "", type: "output" },
          progress: 100,
        },
        { error: "RuntimeError", message: expect.stringContaining('"num_frames" is 6') },
        { error: "RuntimeError", message: expect.stringContaining("Step 3 is not finite.") },
        { error: "InterruptProcessingException", message: "" },
      ]);
      expect(readdirSync(output)).toEqual(["ditrun_00001_.mp4"]);
      expect(readFileSync(join(output, "ditrun_00001_.mp4")).subarray(4, 8).toString()).toBe("ftyp");
      const outcomes: unknown[] = [];
      for await (const { prompt, seed, num_frames, error } of createClient({
        url: server.address,
        apiKey: key,
      }).videos.list()) {
        outcomes.push([prompt, seed, num_frames, error?.code]);
      }
      expect(outcomes).toEqual([
        ["slow", 0, 1, "cancelled"],
        ["fail", 0, 1, "not_finite"],
        ["A red car", "18446744073709551615", 5, undefined],
      ]);
    } finally {
      await server.drain(0, AbortSignal.abort());
      rmSync(folder, { recursive: true });
    }
  },
);
