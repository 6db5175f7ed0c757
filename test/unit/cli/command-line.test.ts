import { expect, test } from "vitest";
import { defineCommand } from "../../../src/cli/command.js";
import { mistakeIn, readLine, spelled } from "../../../src/cli/command-line.js";
import { commands } from "../../../src/cli/commands/index.js";
import { launchOptions } from "../../../src/cli/options/launch.js";
import { parse } from "../../../src/cli/parser.js";
import { packageRoot } from "../../../src/paths.js";

const start = defineCommand({
  name: "start",
  summary: "Start a program",
  example: { line: "ditrun start true", describe: "Nothing" },
  options: launchOptions,
  rest: "PROGRAM [ARGUMENTS]",
  load: async () => ({ run: async () => 0 }),
});
const all = [...commands.filter(({ rest }) => rest === undefined), start];

async function read(words: readonly string[]) {
  const written = readLine(words, all);
  const parsed = await parse(spelled(written), all, 80).catch((error: unknown) => {
    throw mistakeIn(written, words, all) ?? error;
  });
  if ("text" in parsed) return parsed.text;
  const { command, given, rest } = parsed;
  return { name: command.name, given: Object.fromEntries(given), rest };
}
const line = (text: string) => read(text.split(" "));

const script = `${packageRoot}/scripts/build.js`;

test.each([
  ["--nproc 2 start train.py --lr 1e-3 --nproc 9", { nproc: ["2"] }, ["train.py", "--lr", "1e-3", "--nproc", "9"]],
  ["start --nproc 2 -- --odd --name", { nproc: ["2"] }, ["--odd", "--name"]],
  ["start --nproc 2 a -- b", { nproc: ["2"] }, ["a", "--", "b"]],
  [`--nproc 2 ${script} profile --cp 4`, { nproc: ["2"] }, [script, "profile", "--cp", "4"]],
  [`--nproc_per_node=2 ${script}`, { nproc: ["2"] }, [script]],
])("a program keeps its own words: %s", async (text, given, rest) => {
  expect(await line(text)).toEqual({ name: "start", given, rest });
});

test("a script that is not there is no program", async () => {
  await expect(line("--nproc 2 nowhere.py")).rejects.toThrow(
    "there is no such file either; ditrun start starts programs.",
  );
});

test.each([
  [
    "wan generate --ckpt_dir d --sample_steps 5 --frame_num 9 --base_seed 3 --save_file a.mp4 --size 832*480",
    { "ckpt-dir": ["d"], steps: ["5"], frames: ["9"], seed: ["3"], out: ["a.mp4"], size: ["832*480"] },
  ],
  [
    "wan generate --task t2v-14B --sample_guide_scale 6 --sample_shift 8 --sample_solver dpm++",
    { model: ["14B"], "guide-scale": ["6"], shift: ["8"], solver: ["dpm++"] },
  ],
  [
    "wan generate --num-inference-steps 5 --guidance-scale 6 --height 480 --width 832 --num-frames 9 --output a.mp4",
    { steps: ["5"], "guide-scale": ["6"], size: ["832*480"], frames: ["9"], out: ["a.mp4"] },
  ],
  ["profile --nproc-per-node=gpu --master_port 5", { nproc: ["gpu"], "master-port": ["5"] }],
  ["profile --logLevel warn --dryRun", { "log-level": ["warn"], "dry-run": ["true"] }],
  [
    "profile --fp8 False --no-baseline --no-dry-run=false",
    { fp8: ["false"], baseline: ["false"], "dry-run": ["true"] },
  ],
  ["--json profile --cp -2", { json: [""], cp: ["-2"] }],
  ["profile --json a.json", { json: ["a.json"] }],
])("%s", async (text, given) => {
  expect(await line(text)).toMatchObject({ given, rest: [] });
});

test("values may be empty, and begin with a dash after =", async () => {
  expect(await read(["wan", "generate", "--prompt=-x", "--prompt", "a b", "--negative-prompt", ""])).toMatchObject({
    given: { prompt: ["-x", "a b"], "negative-prompt": [""] },
  });
});

test.each([
  ["--help", "ditrun COMMAND [OPTIONS]"],
  ["-h", "ditrun COMMAND [OPTIONS]"],
  ["wan --help", "ditrun wan COMMAND [OPTIONS]"],
  ["profile --cp 2 --help", "ditrun profile [OPTIONS]"],
  ["--help wan generate", "ditrun wan generate [OPTIONS]"],
  ["start --help", "ditrun start [OPTIONS] [--] PROGRAM [ARGUMENTS]"],
])("%s", async (text, usage) => {
  expect(await line(text)).toContain(usage);
});
