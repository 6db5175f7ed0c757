import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { homedir, tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, test, vi } from "vitest";
import { commands } from "../../../src/cli/commands/index.js";
import { main } from "../../../src/cli/main.js";
import { asPath, readOptions } from "../../../src/cli/option.js";
import { generateOptions } from "../../../src/cli/options/generate.js";
import * as rehearsal from "../../../src/cli/rehearsal.js";
import * as device from "../../../src/engine/choose-device.js";
import { catchDryRuns, memory, run, written } from "./written.js";

catchDryRuns();

test("~ at the beginning of a path is the home folder, but not of a prompt", () => {
  expect(readOptions(generateOptions, new Map([["prompt", ["~/x"]]])).prompt).toEqual(["~/x"]);
  const home = homedir();
  const paths = ["~/a.mp4", "~", "a~/b", "~root/a"].map((text) => asPath(text, "--out"));
  expect(paths).toEqual([`${home}/a.mp4`, home, "a~/b", "~root/a"]);
});

test.each(["--json - profile", "--json=- profile", "profile --json -"])("%s writes to stdout", async (line) => {
  expect(await run(`${line} --device cpu --model nope`)).toBe(2);
  expect(JSON.parse(written.stdout)).toMatchObject({
    error: { message: expect.stringContaining('no model named "nope"') },
  });
});

describe("bad input is one sentence and exit code 2", () => {
  test.each([
    ["", "Name a command: profile, accuracy, wan, serve, client, plan, links"],
    ["xyzzy", 'There is no command "xyzzy": name profile, accuracy, wan, serve, client, plan, links'],
    ["profile --cpp 2", "There is no option --cpp: did you mean --cp?"],
    ["profile extra", '"extra" is not understood after profile'],
    ["profile --cp two", '--cp is "two"; it must be a whole number of at least 1'],
    ["profile --cp 0", '--cp is "0"; it must be a whole number of at least 1'],
    ["profile --cp", "--cp needs a value; one that begins with a dash is written --cp=VALUE"],
    ["profile --nproc -1", '--nproc is "-1"'],
    ["profile --cp 1025", '--cp is "1025"; it must be a whole number from 1 to 1024'],
    ["profile --seed 18446744073709551616", "it must be a whole number from 0 to 18446744073709551615, or -1"],
    ["profile --seed -2", '--seed is "-2"'],
    [
      "wan generate --device cpu --model tiny --prompt x --dry-run --init-noise n.safetensors --noise torch-cpu",
      "leave out --noise torch-cpu",
    ],
    ["profile --dtype --dry-run", "--dtype needs a value"],
    ["profile --fp8 maybe", '"maybe" is not understood after --fp8'],
    ["profile --fp8=maybe", '--fp8 is "maybe"; it takes no value: give --fp8 or --no-fp8'],
    ["--nproc 2 profile --nproc 8 --device cpu --dry-run", "--nproc is given twice, but takes effect once"],
    ["profile --cp 2 --cp=4", "--cp is given twice"],
    ["profile --fp8 --no-fp8", "--fp8 is given twice"],
    ["profile --json a.json --json b.json", "--json is given twice"],
    ["wan generate --prompt a --prompt b --steps 1 --steps 2", "--steps is given twice"],
    ["wan generate --prompt a --prompts p.txt", "--prompt and --prompts p.txt both say what to show: leave one"],
    ["wan generate --prompts a.txt --prompts b.txt", "--prompts is given twice"],
    ["wan generate --device cpu --prompt a --prompt \u00a0", "--prompt number 2 is empty"],
    ["wan generate --device cpu --prompts /nowhere/p", "--prompts /nowhere/p could not be read: there is no such file"],
    ["wan generate --device cpu --prompt a --prompt b --out ./", "--out ./ has no name to number for 2 videos"],
    [
      "wan generate --device cpu --prompt a --prompt b --dump d.safetensors --json d-2.safetensors",
      "may come to be one",
    ],
    ["wan generate --prompt a --negative-prompt b --negativePrompt=c", "--negative-prompt is given twice"],
    ["accuracy --plans cp2 --plans tp2", "--plans is given twice"],
    ["links --nproc 2 --sizes 1 --sizes 2", "--sizes is given twice"],
    ["wan generate --prompt a --no-negative-prompt", 'give --negative-prompt "" for an empty one'],
    ["profile --no-json", "There is no option --no-json"],
    ["profile --no-dry-run=1", '--dry-run is "1"; it takes no value'],
    ["profile --log-dir /proc/x", '--log-dir "/proc/x" cannot be written: there is no such file or directory'],
    ["profile --device cpu --json x.json --trace ./x.json", "--trace and --json both name x.json: give each a file"],
    ["profile --device cpu --dry-run --trace /nowhere/x", "Cannot write /nowhere/x"],
    ["profile --cpp-cpp=1", "There is no option --cpp-cpp. See ditrun profile --help."],
    ["profile -- --cp 2", '"--" ends no options here'],
    ["profile --master-port 0x50", '--master-port is "0x50"; it must be a port'],
    ["profile --json /nowhere/x.json", "Cannot write /nowhere/x.json: there is no folder /nowhere"],
    ["profile --json /", "Cannot write /: it is a directory"],
    ["profile --device cpu --trace /", "Cannot write /: it is a directory"],
    ["profile --nproc many", '--nproc is "many"; it must be a whole number'],
    ["profile --nproc gpu --device cpu --dry-run", "--nproc is gpu, but there is no GPU to run on"],
    ["profile --device tpu", '--device is "tpu"; it must be one of auto, cpu, cuda'],
    ["profile --dtype fp16", '--dtype is "fp16"; it must be one of fp32, bf16'],
    ["profile --timeout soon", '--timeout is "soon"'],
    ["profile --seed 1e400", '--seed is "1e400"'],
    ["profile --timeout 0", '--timeout is "0"; it must be a number of seconds above 0'],
    ["profile --master-port 65536", '--master-port is "65536"; it must be a port from 0 to 65535'],
    ["profile --master-port 70000", '--master-port is "70000"; it must be a port from 0 to 65535'],
    ["profile --iterations 0", '--iterations is "0"'],
    ["profile --dry-run --device cpu --nproc 4 --cp 4 --tp 2", "needs 8 workers, but --nproc is 4"],
    [
      "profile --dry-run --device cpu --model nope",
      'There is no model named "nope": choose one of dit, dit-1k, dit-tiny',
    ],
    ["accuracy --dry-run --device cpu --plans cp2 --cp 2", "leave out --plan, --cfg, --cp and --tp"],
    ["accuracy --dry-run --device cpu --reference r.safetensors", "give --weights DIR too"],
    ["accuracy --dry-run --device cpu --weights w --model dit", "leave out --model"],
    ["accuracy --dry-run --device cpu --frames 5", "--frames is of a video, but dit-tiny makes images"],
    ["accuracy --dry-run --device cpu --weights w --reference r --against same", "leave out --against"],
    ["wan --model dit accuracy --dry-run --device cpu", "dit is a dit model: use ditrun accuracy"],
    [
      "accuracy --dry-run --device cpu --weights ./none",
      "config.json could not be read: there is no such file or directory",
    ],
    ["accuracy --dry-run --device cpu --plans cp2,cp-3", 'There is no plan named "cp-3": did you mean cp'],
    ["wan", "Name what to do with wan: generate, profile or accuracy."],
    ["wan paint", 'There is no command "paint" of wan: name generate, profile or accuracy'],
    ["wan generate", "--prompt or --prompts must be given"],
    ["wan generate --device cpu --prompt \u00a0", "--prompt is empty"],
    ["wan generate --device cpu --prompt x --size 832*472", "the nearest is 832*480"],
    ["wan generate --device cpu --prompt x --size hd", '--size is "hd"; it must be WIDTH*HEIGHT'],
    ["wan generate --device cpu --prompt x --frames 80", "choose 77 or 81"],
    ["wan generate --device cpu --prompt x --steps 1001", "from 1 to 1000, not 1001"],
    ["wan generate --device cpu --prompt x --frames 57605", '--frames is "57605"; it must be a whole number from 1 to'],
    ["wan generate --device cpu --prompt x --shift 1e300", "The sampling shift 1e+300 leaves steps among"],
    ["wan generate --device cpu --prompt x --shift 1e-300", "The sampling shift 1e-300 leaves steps among"],
    ["wan generate --device cpu --prompt x --out v.mp4 --dump ./v.mp4", "--out and --dump both name ./v.mp4"],
    ["wan generate --device cpu --prompt x --weights random --download", "leave out --download"],
    ["wan generate --device cpu --prompt red --out /proc/x/", "Cannot write frames into /proc/x/"],
    ["wan generate --device cpu --prompt x --shift -1", '--shift is "-1"; it must be a number above 0'],
    [
      "wan generate --device cpu --prompt x --model tiny --bf16-steps 2",
      "plan single bf16 has nothing in fp8: add --fp8",
    ],
    [
      "wan generate --device cpu --prompt x --model tiny --fp8 --bf16-steps 5",
      "leaves none of the 10 steps for fp8: choose at most 4",
    ],
    ["wan generate --device cpu --prompt x --guide-scale high", '--guide-scale is "high"'],
    ["wan generate --device cpu --prompt x --guide-scale 1 --nproc 2 --cfg 2", "so cfg must be 1, but --cfg is 2"],
    ["wan generate --device cpu --prompt x --out v.avi --model tiny --dry-run", "end it in .mp4"],
    ["wan generate --device cpu --prompt x --fps 0.5", '--fps is "0.5"; it must be a number from 1 to 1000'],
    ["wan generate --device cpu --prompt x --size 99984*16", "a side of a video has at most 16384 pixels"],
    ["wan generate --device cpu --prompt x --memory 1e300", "above 0 and at most 1000000"],
    ["wan generate --device cpu --prompt x --dump /dev/null", "Cannot write /dev/null: it is a device or a pipe"],
    ["wan profile --device cpu --dump /", "Cannot write /: it is a directory"],
    ["wan generate --device cpu --prompt x --model dit", "but dit is a dit model"],
    ["wan generate --device cpu --prompt x --ckpt-dir /nowhere --model 14B", "/nowhere is not a Wan checkpoint"],
    ["wan generate --device cpu --prompt x --ckpt-dir d --weights random", "leave out --ckpt-dir"],
    ["wan generate --device cpu --prompt x --dump /nowhere/x", "Cannot write /nowhere/x: there is no folder /nowhere"],
    ["wan generate --device cpu --prompt x --init-noise n.pt", '--init-noise is "n.pt"; it must be FILE.safetensors'],
    [
      "wan generate --device cpu --prompt x --model 14B --ckpt-dir test/golden/data/wan/diffusers",
      "transformer/config.json describes a model with width 128, but --model 14B has width 5120",
    ],
  ])("ditrun %s", async (line, message) => {
    expect(await run(line)).toBe(2);
    expect(written.stderr).toContain(message);
    expect(written.stderr.trim().split("\n")).toHaveLength(1);
    expect(written.stdout).toBe("");
  });

  test("a kernel module that does not exist", async () => {
    vi.stubEnv("DITRUN_KERNELS", "/nowhere/k.so");
    expect(await run("profile")).toBe(3);
    expect(written.stderr).toBe("ditrun: DITRUN_KERNELS names /nowhere/k.so, which does not exist.\n");
  });

  test.each([
    "profile --model dit",
    "wan generate --prompt x --model 14B --download",
    "wan --model tiny generate --prompt x --size 832*480 --frames 81",
    "wan --model 1.4B profile",
    "accuracy --model dit",
  ])("work for a GPU is not begun where there is none and the CPU was not chosen: %s", async (line) => {
    vi.spyOn(device, "chooseDevice").mockResolvedValue({
      ...{ device: "cpu", kernels: "k.so", count: 1, noGpu: "No GPU is visible." },
    });
    vi.stubEnv("HF_HUB_CACHE", "/nowhere");
    vi.stubEnv("HF_ENDPOINT", "http://127.0.0.1:9");
    expect(await run(line)).toBe(3);
    expect(written.stderr).toMatch(/is work for a GPU\. No GPU is visible\. Choose a smaller .* or add --device cpu/);
  });

  test("a dry run downloads nothing", async () => {
    vi.stubEnv("HF_HUB_CACHE", "/nowhere");
    vi.stubEnv("HF_ENDPOINT", "http://127.0.0.1:9");
    expect(await run("wan generate --model 1.4B --device cpu --prompt x --download --dry-run")).toBe(2);
    expect(written.stderr).toContain("No checkpoint of Wan 1.4B is in the Hugging Face cache /nowhere");
  });

  test("MASTER_PORT that is no port", async () => {
    vi.stubEnv("MASTER_PORT", "http");
    expect(await run("profile --device cpu --log-level warn")).toBe(2);
    expect(written.stderr).toBe('ditrun: MASTER_PORT is "http"; it must be a port from 0 to 65535.\n');
  });
});

describe("a file of prompts", () => {
  const folder = mkdtempSync(join(tmpdir(), "ditrun-prompts-"));
  const file = join(folder, "p.txt");
  afterAll(() => rmSync(folder, { recursive: true }));
  const dryRun = (text: string | Uint8Array, more = "") => {
    writeFileSync(file, text);
    return run(`wan generate --model tiny --device cpu --dry-run --json --prompts ${file} ${more}`);
  };

  test.each([
    ["# none\n\n \t\n", `--prompts ${file} has no prompt: write one a line`],
    ["", `--prompts ${file} has no prompt: write one a line`],
    ["a\r\n# b\r\n\r\n &nbsp; \r\n", `${file} line 4 is empty: say what the video should show`],
    [Buffer.from("a\nM\xe4rz\n", "latin1"), `${file} line 2 is not UTF-8: save the file as that`],
  ])("%j is refused", async (text, message) => {
    expect(await dryRun(text)).toBe(2);
    expect(JSON.parse(written.stdout).error).toMatchObject({
      code: "ERR_PROMPT",
      message: expect.stringContaining(message),
    });
  });

  test("a dry run says how many videos; a line of any script is a prompt", async () => {
    expect(await dryRun("\uFEFF#a\nein Bär\n\n  猫  \nc # d")).toBe(0);
    expect(JSON.parse(written.stdout)).toMatchObject({ dryRun: true, videoCount: 3 });
    expect(written.stderr).toContain(": 3 videos");
  });

  test("no output of a later prompt is what the line reads, or is there already", async () => {
    const dump = join(folder, "d.safetensors");
    writeFileSync(join(folder, "d-2.safetensors"), "kept");
    expect(await dryRun("a\nb", `--dump ${dump}`)).toBe(2);
    expect(written.stderr).toContain("d-2.safetensors, which is there already");
    expect(await dryRun("a", `--dump ${dump}`)).toBe(0);
    const noise = `--overwrite --init-noise ${join(folder, "d-2.safetensors")}`;
    expect(await dryRun("a\nb", `--dump ${dump} ${noise}`)).toBe(2);
    expect(written.stderr).toMatch(/--dump \S+d-2\.safetensors would write over \S+, which --init-noise reads/);
    mkdirSync(join(folder, "v-3.mp4"));
    expect(await dryRun("a\nb\nc", `--out ${folder}/v.mp4 --overwrite`)).toBe(2);
    expect(written.stderr).toContain("v-3.mp4: it is a directory");
    expect(await dryRun("a\nb\nc", `--out ${folder}/v.mp4`)).toBe(0);
  });
});

describe("global options stand before or after the command", () => {
  const dryRun = async (line: string) => {
    written.stdout = "";
    expect(await run(line)).toBe(0);
    return JSON.parse(written.stdout);
  };

  test.each([
    "--nproc 8 --device cpu --dry-run --json profile",
    "--json --nproc 8 --device cpu --dry-run profile",
    "--json profile --nproc 8 --device cpu --dry-run",
    "profile --json --nproc 8 --device cpu --dry-run",
  ])("%s", async (line) => {
    const { runs, model } = await dryRun(line);
    expect(runs).toMatchObject([
      { plan: { mesh: { cfg: 1, cp: 8, tp: 1 } }, workers: 8, headsPerRank: 8, tokensPerRank: [128, 128] },
    ]);
    expect(model.name).toBe("dit-tiny");
  });

  test("a dry run says how much memory is needed, and how it would be made", async () => {
    const line = "wan --model tiny generate --prompt x --device cpu --dry-run --json";
    expect(await dryRun(line)).toMatchObject({ memory });
    expect(written.stderr).toContain(
      "needs at most 3.00 GiB of device memory for all models at once, and has 4.00 GiB",
    );
    expect(written.stderr).toContain("one model at a time");
  });

  test("a dry run starts no hundreds of workers", async () => {
    vi.mocked(rehearsal.rehearse).mockRestore();
    const { runs, memory: none } = await dryRun("profile --nproc 100 --model dit --device cpu --dry-run --json");
    expect([runs[0].workers, none]).toEqual([100, undefined]);
    expect(written.stderr).toContain(
      "Memory and files were not checked: a dry run starts 64 workers at most, and these are 100.",
    );
  });

  test("the benchmark is the model on a GPU", async () => {
    vi.spyOn(device, "chooseDevice").mockResolvedValue({ device: "cuda", kernels: "k.so", count: 3 });
    const { model, device: name, runs } = await dryRun("profile --device cuda --cp 3 --dry-run --json --baseline");
    expect([model.name, name]).toEqual(["dit", "cuda"]);
    expect(runs).toMatchObject([{ tokensPerRank: [21_845, 21_846] }, { workers: 1 }]);
  });

  test.each([
    ["1.4B", "wan-1.3b", 32_760],
    ["14B", "wan-14b", 75_600],
    ["14b --size 832x480 --frames 5", "wan-14b", 3120],
  ])("wan --model %s has its published size", async (model, name, tokens) => {
    const line = `--nproc 8 --json wan --model ${model} generate --weights random --prompt x --device cpu --dry-run`;
    expect(await dryRun(line)).toMatchObject({
      tokens,
      model: { name },
      runs: [{ plan: { mesh: { cfg: 2 } }, workers: 8 }],
    });
  });

  test("accuracy compares each plan with one device, in float32 if asked to", async () => {
    const { runs } = await dryRun("accuracy --plans cp2,single-fp8 --against fp32 --device cpu --dry-run --json");
    expect(
      runs.map(({ plan, precision }: { plan: { name: string }; precision: string }) => [plan.name, precision]),
    ).toEqual([
      ["cp2", "bf16"],
      ["single fp32", "fp32"],
      ["single-fp8", "e4m3"],
    ]);
  });

  test("accuracy runs one device once for all plans of a dtype, and once in float32", async () => {
    const names = async (line: string) => {
      const { runs } = await dryRun(`accuracy ${line} --device cpu --dry-run --json`);
      return runs.map(({ plan }: { plan: { name: string } }) => plan.name);
    };
    expect(await names("--plans cp2,tp2")).toEqual(["cp2", "single bf16", "tp2", "single fp32"]);
    expect(await names("--plans cp2,tp2 --against same")).toEqual(["cp2", "single bf16", "tp2"]);
    expect(await names("--cp 2 --dtype fp32")).toEqual(["cp2 fp32", "single fp32"]);
  });

  test.each([
    // 17 frames of 96 × 96, which only the small model has by default.
    ["models/wan-tiny", "", 180, 6],
    ["test/golden/data/wan/diffusers", "--size 96*64 --frames 9", 72, 3],
  ])("%s says itself which model it is", async (folder, size, tokens, layers) => {
    for (const option of ["--ckpt-dir", "--model"]) {
      const line = `wan generate ${option} ${folder} --prompt x --device cpu --dry-run --json ${size}`.trim();
      expect(await dryRun(line)).toMatchObject({ tokens, model: { kind: "wan", width: 128, layers } });
    }
  });

  test.each([
    ["accuracy --model 14B --plans cp2", "wan-14b", 75_600],
    ["accuracy --model wan-slice --size 832*480 --frames 81 --cp 2", "wan-slice", 32_760],
    ["wan --model tiny accuracy --cp 2", "wan-tiny", 480],
  ])("%s is of a Wan model", async (line, name, tokens) => {
    expect(await dryRun(`${line} --device cpu --dry-run --json`)).toMatchObject({ model: { name }, tokens });
  });
});

describe("help and version", () => {
  test("--help shows each command with an example", async () => {
    expect(await run("--help")).toBe(0);
    for (const text of [
      "  ditrun wan  ",
      "ditrun profile --nproc 8 --cp 4 --tp 2",
      "ditrun accuracy --plans",
      "ditrun links --nproc 8",
    ]) {
      expect(written.stdout).toContain(text);
    }
  });

  test.each(
    commands
      .filter(({ options, rest }) => "dry-run" in options && !rest)
      .map(({ name, example }) => [name, example.line]),
  )("the example of %s works: %s", async (_, line) => {
    const words = [...line.matchAll(/"([^"]*)"|\S+/g)].map(([word, quoted]) => quoted ?? word);
    expect(await main([...words.slice(1), "--dry-run", "--device", "cpu"])).toBe(0);
  });

  test("profile --help shows its own options", async () => {
    expect(await run("profile --help")).toBe(0);
    expect(written.stdout).toContain("--baseline");
    expect(written.stdout).toContain("ditrun profile --nproc 8 --cp 4 --tp 2");
  });

  test("--version", async () => {
    expect(await run("--version")).toBe(0);
    expect(written.stdout).toMatch(/^\d+\.\d+\.\d+\n$/);
  });
});

test("--seed -1 draws a seed of 63 bits each time, and says which", async () => {
  const draws = [];
  for (let time = 0; time < 2; time++) {
    written.stderr = "";
    expect(await run("profile --dry-run --device cpu --model dit-tiny --seed -1")).toBe(0);
    draws.push(BigInt(/drew the seed (\d+)\./.exec(written.stderr)?.[1] ?? "-1"));
  }
  const [first = -1n, second = -1n] = draws;
  expect(first).not.toBe(second);
  for (const seed of draws) expect(seed >= 0n && seed < 2n ** 63n).toBe(true);
  // Both below 2^54 would be chance once in 2^18 runs.
  expect(draws.some((seed) => seed >= 2n ** 54n)).toBe(true);
});
