import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { PNG } from "pngjs";
import { afterAll, expect, test } from "vitest";
import { main } from "../../../src/cli/main.js";
import { writeSafetensors } from "../../../src/formats/safetensors.js";
import { documentSchemas } from "../../../src/views/documents.js";
import { catchOutput, written } from "./written.js";

const folder = mkdtempSync(join(tmpdir(), "ditrun-compare-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));
const at = (name: string) => join(folder, name);

catchOutput();
const run = (line: string) => main(`compare ${line}`.replaceAll("@", folder).split(" "));

function frames(name: string, grey: readonly number[], width = 16) {
  mkdirSync(at(name));
  grey.forEach((value, index) => {
    const png = new PNG({ width, height: 16 });
    png.data = Buffer.alloc(4 * width * 16, value);
    writeFileSync(join(at(name), `frame-${String(index).padStart(5, "0")}.png`), PNG.sync.write(png));
  });
}

test("folders of frames are compared, as tables, JSON and a page; --fail-above decides the exit code", async () => {
  frames("a", [100, 100]);
  frames("b", [100, 102]);
  expect(await run("@/a @/b --html @/c.html")).toBe(0);
  // Mean squared difference 2: 48.13 - 3.01 dB.
  expect(written.stdout).toContain("Verdict: the videos differ from frame 2 on: PSNR 45.1 dB, SSIM 0.9999.");
  expect(readFileSync(at("c.html"), "utf8")).toContain("Frame by frame");
  expect(await run("@/a @/b --json=@/c.json --fail-above 1 --quiet")).toBe(1);
  const document = documentSchemas.compare.parse(JSON.parse(readFileSync(at("c.json"), "utf8")));
  // root 2 over 100 is 1.4 %.
  expect(document).toMatchObject({ kind: "videos", pass: false, failAbove: 1, frames: 2, firstApart: 2 });
  expect(await run("@/a @/b --fail-above 1.5 --quiet")).toBe(0);
});

test("dumps are compared tensor by tensor", async () => {
  const data = (values: number[]) => ({
    dtype: "F32" as const,
    shape: [values.length],
    data: Float32Array.from(values),
  });
  await writeSafetensors(at("a.safetensors"), { "latent.0": data([1, 2]), "latent.1": data([3, 4]) });
  await writeSafetensors(at("b.safetensors"), { "latent.0": data([1, 2]), "latent.1": data([3, 4.5]) });
  expect(await run("@/a.safetensors @/b.safetensors --json")).toBe(0);
  expect(documentSchemas.compare.parse(JSON.parse(written.stdout))).toMatchObject({
    kind: "dumps",
    firstApart: "step 2",
  });
  expect(written.stderr).toMatch(/^latent\.0 +step 1 +equal/m);
});

test("bad inputs get one line", async () => {
  frames("wide", [1], 32);
  frames("short", [100]);
  mkdirSync(at("empty"));
  writeFileSync(at("bad.json"), "{");
  writeFileSync(at("other.json"), JSON.stringify({ command: "links" }));
  writeFileSync(at("bad.mp4"), "no video");
  const mistakes: [string, string][] = [
    ["@/a", "compare takes two files, and got 1"],
    ["@/a @/b @/a", "compare takes two files, and got 3"],
    ["@/a @/wide", "has frames of 16 × 16, @/wide of 32 × 16"],
    ["@/a @/short", "@/short ends after 1 frames, and the other video goes on"],
    ["@/a @/empty", "@/empty could not be read: it has no frame-00000.png"],
    ["@/a @/gone.mp4", "@/gone.mp4 could not be read: there is no such file or directory"],
    ["@/a @/bad.json", "is a video, but @/bad.json is a result"],
    ["@/bad.json @/bad.json", "@/bad.json is not valid JSON"],
    [
      "@/other.json @/other.json",
      '@/other.json: command is "links"; it must be one of profile, wan profile, wan generate',
    ],
    ["@/a.txt @/b.txt", "@/a.txt is none that compare knows"],
    ["@/a @/b --fail-above much", '--fail-above is "much"; it must be a number of per cent'],
    ["@/a @/b --html @/gone/x.html", "there is no folder"],
  ];
  for (const [line, sentence] of mistakes) {
    written.stderr = "";
    expect(await run(line), line).toBe(2);
    expect(written.stderr).toContain(sentence.replaceAll("@", folder));
    expect(written.stderr.trim().split("\n")).toHaveLength(1);
  }
});
