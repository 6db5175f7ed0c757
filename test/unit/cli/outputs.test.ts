import {
  existsSync,
  linkSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { envelopeOf } from "../../../src/cli/envelope.js";
import { JsonDocument } from "../../../src/cli/json-document.js";
import { DitrunError } from "../../../src/failure.js";
import { packageRoot } from "../../../src/paths.js";
import { documentSchemas } from "../../../src/views/documents.js";
import { catchDryRuns, run, written } from "./written.js";

catchDryRuns();

describe("--json is one document on stdout, also of a failure", () => {
  test.each([
    ["--json profile --cp 3 --tp 2 --nproc 4 --device cpu", "ERR_PLAN_MESH", "needs 6 workers, but --nproc is 4"],
    ["profile --json --cpp 2", "ERR_COMMAND_LINE", "There is no option --cpp: did"],
    ["wan generate --json", "ERR_COMMAND_LINE", "--prompt or --prompts must be given"],
    ["--json", "ERR_COMMAND_LINE", "Name a command"],
  ])("ditrun %s", async (line, code, message) => {
    expect(await run(line)).toBe(2);
    expect(documentSchemas.error.parse(JSON.parse(written.stdout))).toMatchObject({
      commandLine: ["ditrun", ...line.split(" ")],
      error: { message: expect.stringContaining(message), code, exitCode: 2 },
    });
    expect(written.stderr).toContain(message);
  });

  test("what comes after the first document is left out", async () => {
    const document = new JsonDocument("", envelopeOf([]));
    await document.write({ first: true });
    await document.fail(new DitrunError("ERR_INTERNAL", "later"));
    expect(JSON.parse(written.stdout)).toEqual({ ...envelopeOf([]), startedAt: expect.any(String), first: true });
  });

  test("in a file, once it is known to be the one that was meant", async () => {
    const folder = mkdtempSync(join(tmpdir(), "ditrun-json-"));
    const file = join(folder, "result.json");
    expect(await run(`profile --json ${file} --cpp 2`)).toBe(2);
    expect(existsSync(file)).toBe(false);
    expect(await run(`profile --json ${file} --device cpu --trace ${file}`)).toBe(2);
    expect(existsSync(file)).toBe(false);
    expect(await run(`profile --json ${file} --device cpu --plan nope`)).toBe(2);
    expect(JSON.parse(readFileSync(file, "utf8")).error.message).toContain('There is no plan named "nope"');
    expect(written.stdout).toBe("");
    rmSync(folder, { recursive: true });
  });
});

describe("no output is written over what the same line reads or writes", () => {
  const folder = mkdtempSync(join(tmpdir(), "ditrun-outputs-"));
  const at = (name: string) => join(folder, name);
  const kept = "steps: kept as it is";
  beforeEach(() => {
    for (const name of ["p.yaml", "n.safetensors", "t.json", "lg/launcher.log", "ck/text/config.json"]) {
      mkdirSync(dirname(at(name)), { recursive: true });
      writeFileSync(at(name), kept);
    }
    symlinkSync(at("p.yaml"), at("link"));
    linkSync(at("n.safetensors"), at("hard"));
    linkSync(at("n.safetensors"), at("link.safetensors"));
    symlinkSync(at("new"), at("dangling"));
    linkSync(at("ck/text/config.json"), at("blob"));
    mkdirSync(at("frames"));
  });
  afterEach(() => rmSync(folder, { recursive: true }));
  const generate = "wan generate --model tiny --prompt x --dry-run";

  test.each([
    ["profile --dry-run --plan @/p.yaml --json @/p.yaml", "--json @/p.yaml would write over @/p.yaml, which --plan"],
    ["profile --plan @/p.yaml --json @/link", "--json @/link would write over @/p.yaml, which --plan reads"],
    ["profile --model @/p.yaml --trace @/link", "--trace @/link would write over @/p.yaml, which --model reads"],
    ["accuracy --plans cp2,@/p.yaml --json @/link", "--json @/link would write over @/p.yaml, which --plans reads"],
    ["profile --trace @/t.json --json @/t.json", "--trace and --json both name @/t.json: give each a file of its own"],
    ["profile --trace @/new --json @/dangling", "@/new of --trace and @/dangling of --json are one file: give each"],
    ["profile --log-dir @/lg --json @/lg/launcher.log", "--log-dir and --json both name @/lg/launcher.log"],
    ["accuracy --weights @/ck --json @/blob", "--json @/blob would write over @/ck/text/config.json, which --weights"],
    ["accuracy --weights @/ck --reference @/n.safetensors --json @/hard", "@/n.safetensors, which --reference reads"],
    [`${generate} --ckpt-dir @/ck --json @/ck/text/config.json`, "which --ckpt-dir reads: choose another file"],
    [`${generate} --init-noise @/n.safetensors:latent.1 --json @/hard`, "@/n.safetensors, which --init-noise reads"],
    [`${generate} --overwrite --init-noise @/n.safetensors --dump @/link.safetensors`, "which --init-noise reads"],
    [`${generate} --out @/v.mp4 --json @/v-2.mp4`, "--out @/v.mp4 and --json @/v-2.mp4 may come to be one file"],
    [`${generate} --out @/frames/ --json @/frames/frame-00001.png`, "may come to be one file: give each a name of its"],
    [`${generate} --json ${packageRoot}/models/wan-tiny/config.json`, "which ditrun itself reads: choose another file"],
  ])("%s", async (line, message) => {
    const before = readdirSync(folder);
    expect(await run(`${line.replaceAll("@", folder)} --device cpu`)).toBe(2);
    expect(written.stderr).toContain(message.replaceAll("@", folder));
    expect(written.stdout).toBe("");
    for (const name of ["p.yaml", "n.safetensors", "t.json", "lg/launcher.log", "ck/text/config.json"]) {
      expect(readFileSync(at(name), "utf8")).toBe(kept);
    }
    expect(readdirSync(folder)).toEqual(before);
  });

  test("a clash of others is told in the document; a device takes everything, a new file may lie in a checkpoint", async () => {
    expect(
      await run(`profile --device cpu --log-dir @/lg --trace @/lg/launcher.log --json @/j`.replaceAll("@", folder)),
    ).toBe(2);
    expect(JSON.parse(readFileSync(at("j"), "utf8")).error.message).toContain("--log-dir and --trace both name");
    expect(await run("links --nproc 2 --device cpu --dry-run --json /dev/null")).toBe(0);
    expect(await run("profile --device cpu --dry-run --json /dev/null --trace /dev/null")).toBe(0);
    expect(await run(`${generate} --device cpu --ckpt-dir ${folder}/ck --json ${folder}/ck/new.json`)).toBe(2);
    expect(JSON.parse(readFileSync(at("ck/new.json"), "utf8")).error.message).not.toContain("choose another file");
  });
});
