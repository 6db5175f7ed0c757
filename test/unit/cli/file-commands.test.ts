import { cpSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { describe, expect, test } from "vitest";
import { documentSchemas } from "../../../src/views/documents.js";
import { catchDryRuns, run, written } from "./written.js";

catchDryRuns();

describe("inspect", () => {
  const transformer = "models/wan-tiny/diffusion_pytorch_model.safetensors";

  test("says what files are, with options among them", async () => {
    expect(await run(`inspect models/wan-tiny/Wan2.1_VAE.pth --plan cp2 ${transformer}`)).toBe(0);
    expect(written.stdout).toContain("VAE        the VAE of Wan 2.1, 16 channels");
    expect(written.stdout).toContain("tensors      177, 1.6 million parameters, 3.0 MiB");
    expect(written.stdout).toMatch(/each worker {2}[\d.]+ MiB of weights under cp2, bf16/);
    expect(written.stderr).toBe("");
  });

  test("has a document, and --json takes no file of weights for its own", async () => {
    expect(await run(`inspect --json ${transformer}`)).toBe(0);
    const document = documentSchemas.inspect.parse(JSON.parse(written.stdout));
    expect(document.files[0]?.parts[0]).toMatchObject({ part: "transformer", dtypes: { BF16: 177 }, prefix: "" });
    expect(document.plan).toBeNull();
  });

  test("a file that cannot be used is told of beside the others, and is exit code 2", async () => {
    expect(await run(`inspect README.md ${transformer}`)).toBe(2);
    expect(written.stdout).toContain("README.md is no file of weights that ditrun reads");
    expect(written.stdout).toContain("transformer  6 blocks of width 128, text-to-video");
  });

  test("without a file it is a mistake", async () => {
    expect(await run("inspect")).toBe(2);
    expect(written.stderr).toContain("inspect needs a file: ditrun inspect FILE.");
  });

  test("--json=FILE does not write over a file that is looked at", async () => {
    const folder = mkdtempSync(join(tmpdir(), "ditrun-inspect-"));
    const file = join(folder, "vae.pth");
    cpSync("models/wan-tiny/Wan2.1_VAE.pth", file);
    expect(await run(`inspect --json=${file} ${file}`)).toBe(2);
    expect(written.stderr).toContain(`--json ${file} would write over`);
    expect(readFileSync(file).equals(readFileSync("models/wan-tiny/Wan2.1_VAE.pth"))).toBe(true);
    rmSync(folder, { recursive: true });
  });
});

describe("convert", () => {
  const dry = "convert --device cpu --dry-run";

  test("says what it would write", async () => {
    expect(await run(`${dry} --json --to e4m3 --model tiny new.safetensors`)).toBe(0);
    const document = documentSchemas.convert.parse(JSON.parse(written.stdout));
    expect(document).toMatchObject({ part: "transformer", to: "e4m3", out: resolve("new.safetensors"), bytes: null });
    expect(document.file).toBe(resolve("models/wan-tiny/diffusion_pytorch_model.safetensors"));
  });

  test("a file that is there stays, and a source is never written over", async () => {
    const folder = mkdtempSync(join(tmpdir(), "ditrun-convert-"));
    const file = join(folder, "mine.safetensors");
    cpSync("models/wan-tiny/diffusion_pytorch_model.safetensors", file);
    expect(await run(`${dry} --to bf16 --model tiny ${file}`)).toBe(2);
    expect(written.stderr).toContain(`${file}, which is there already: choose another name, or add --overwrite.`);
    expect(await run(`${dry} --to bf16 --overwrite --transformer ${file} ${file}`)).toBe(2);
    expect(written.stderr).toContain(`convert ${file} would write over ${file}, which --transformer reads`);
    rmSync(folder, { recursive: true });
  });

  test.each([
    ["--to bf16 --model tiny", "convert needs --to and one file to write"],
    ["--model tiny new.safetensors", "convert needs --to and one file to write"],
    ["--to fp8 --model tiny new.safetensors", "fp8 is e4m3"],
    ["--to bf16 new.safetensors", "convert needs something to convert: name it with --transformer"],
    ["--to bf16 --text-encoder a.pth --lora b.safetensors new.safetensors", "--text-encoder and --lora are of two"],
    ["--to bf16 --transformer models/wan-tiny/Wan2.1_VAE.pth new.safetensors", "is a VAE, not a transformer"],
  ])("%s is a mistake", async (line, message) => {
    expect(await run(`${dry} ${line}`)).toBe(2);
    expect(written.stderr).toContain(message);
  });
});
