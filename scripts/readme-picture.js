// Makes the README's first video and writes five of its frames side by side to docs/first-video.png.
//   node scripts/readme-picture.js; npm run build first
import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { PNG } from "pngjs";

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const prompt = "A red circle moves right on blue";
const shown = [0, 4, 8, 12, 16];
const gap = 8;

const folder = mkdtempSync(join(tmpdir(), "picture-"));
try {
  const words = ["wan", "--model", "tiny", "--device", "cpu", "generate", "--prompt", prompt, "--out", "frames/"];
  const { status, stderr } = spawnSync(process.execPath, [join(root, "bin/ditrun.js"), ...words], {
    cwd: folder,
    encoding: "utf8",
  });
  if (status !== 0) throw new Error(stderr);
  const frames = shown.map((index) =>
    PNG.sync.read(readFileSync(join(folder, "frames", `frame-${String(index).padStart(5, "0")}.png`))),
  );
  const { width, height } = frames[0];
  const strip = new PNG({ width: (width + gap) * frames.length - gap, height });
  frames.forEach((frame, index) => {
    PNG.bitblt(frame, strip, 0, 0, width, height, index * (width + gap), 0);
  });
  writeFileSync(join(root, "docs/first-video.png"), PNG.sync.write(strip));
} finally {
  rmSync(folder, { recursive: true });
}
