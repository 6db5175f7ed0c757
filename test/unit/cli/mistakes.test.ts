import { beforeEach, expect, test, vi } from "vitest";
import { commands } from "../../../src/cli/commands/index.js";
import { main } from "../../../src/cli/main.js";
import * as rehearsal from "../../../src/cli/rehearsal.js";
import { alternatives } from "../../../src/cli/usage-message.js";
import { catchOutput, written } from "./written.js";

// What people type who come from other programs, or type in haste: each is one sentence that says what to do, and exit code 2.

catchOutput();
beforeEach(() => {
  vi.stubEnv("DITRUN_KERNELS", "");
  // A line that is understood after all must not start workers here.
  vi.spyOn(rehearsal, "rehearse").mockRejectedValue(new Error("No line of these is right."));
});

/** Words as a shell makes them of a line, with single quotes only. */
function wordsOf(line: string): string[] {
  return [...line.matchAll(/'([^']*)'|\S+/g)].map(([word, quoted]) => quoted ?? word);
}

const generate = "wan generate --device cpu --model tiny --prompt x";
const heads = alternatives([...new Set(commands.map(({ name }) => name.split(" ")[0] ?? ""))]);
const dry = "--device cpu --dry-run";
const sizes = `${generate} --width`;
const list = "choose one of ";

test.each([
  // Commands.
  ["", `Name a command: ${heads}. See ditrun --help.`],
  ["generate --prompt x", 'There is no command "generate": did you mean ditrun wan generate?'],
  ["genrate --prompt x", 'There is no command "genrate": did you mean ditrun wan generate?'],
  ["profle", 'There is no command "profle": did you mean ditrun profile?'],
  ["accurracy", 'There is no command "accurracy": did you mean ditrun accuracy?'],
  ["WAN generate", 'There is no command "WAN": did you mean ditrun wan?'],
  ["bench", 'There is no command "bench": did you mean ditrun profile?'],
  ["xyzzy", `There is no command "xyzzy": name ${heads}. See ditrun --help.`],
  ["wan", "Name what to do with wan: generate, profile or accuracy. See ditrun wan --help."],
  ["wan serve", 'There is no command "serve" of wan: name generate, profile or accuracy. See ditrun wan --help.'],
  ["wan i2v", 'There is no command "i2v" of wan: only text-to-video is supported, which is ditrun wan generate.'],
  ["wan t2v", 'There is no command "t2v" of wan: did you mean ditrun wan generate?'],
  ["wan acuracy --help", 'There is no command "acuracy" of wan: did you mean ditrun wan accuracy?'],
  ["wan links", 'There is no command "links" of wan: name generate, profile or accuracy. See ditrun wan --help.'],

  // A second transformer.
  [
    `${generate} --transformer-2 low.gguf`,
    "--transformer-2 low.gguf is for the second transformer of Wan 2.2 A14B, and tiny has one: leave it out.",
  ],
  [
    `${generate} --lora-2 a.safetensors`,
    "--lora-2 a.safetensors is for the second transformer of Wan 2.2 A14B, and tiny has one: give it to --lora.",
  ],

  // Scripts.
  ["train.py", 'There is no command "train.py": there is no such file either; ditrun run starts programs.'],
  ["--nproc 2 train.py", 'There is no command "train.py": there is no such file either; ditrun run starts programs.'],
  ["--nproc-per-node 2 train.py", 'There is no command "train.py": there is no such file either; ditrun run starts'],
  ["profile -- --cp 2", '"--" ends no options here: leave it out. See ditrun profile --help.'],

  // Options.
  ["wan generate --promt 'a cat'", "There is no option --promt: did you mean --prompt?"],
  ["wan generate -p x", "There is no option -p: did you mean --prompt?"],
  ["wan generate --prompt-file f", "There is no option --prompt-file: did you mean --prompt?"],
  ["--verbose profile", "There is no option --verbose. See ditrun profile --help."],
  ["-v", "There is no option -v: did you mean --version?"],
  ["-V", "There is no option -V: did you mean --version?"],
  ["--nprocs 2 profile", "There is no option --nprocs: did you mean --nproc?"],
  ["-nproc 2 profile", "There is no option -nproc: did you mean --nproc?"],
  ["profile --iteration 3", "There is no option --iteration: did you mean --iterations?"],
  ["profile --trace-file t", "There is no option --trace-file: did you mean --trace?"],
  ["profile --tracefile t", "There is no option --tracefile: did you mean --trace?"],
  ["profile --no-baselin", "There is no option --no-baselin: did you mean --no-baseline?"],
  ["links --nproc 2 --plan cp2", "links takes no --plan: leave it out."],
  ["links --nproc 2 --model dit", "links takes no --model: leave it out."],
  ["profile --prompt x", "profile takes no --prompt: leave it out."],
  ["wan profile --sample_steps 5", "wan profile takes no --steps: leave it out."],
  ["profile --cp", "--cp needs a value; one that begins with a dash is written --cp=VALUE."],
  ["profile --cp 2 --cp=4", "--cp is given twice, but takes effect once: leave one of them out."],
  [`${generate} --frames 5 --frame_num 9`, "--frames is given twice, but takes effect once: leave one of them out."],

  // Words too many.
  ["wan generate 'a cat'", '"a cat" is not understood after generate: did you mean --prompt "a cat"?'],
  [
    "wan generate --prompt Two cats box",
    '"cats" is not understood after Two: put the whole text of --prompt in quotes.',
  ],
  ["profile extra", '"extra" is not understood after profile. See ditrun profile --help.'],
  ["profile --fp8 maybe", '"maybe" is not understood after --fp8. See ditrun profile --help.'],

  // Options of Wan's generate.py, of diffusers and of torchrun that mean something else here.
  [
    `${generate} --offload_model True`,
    "Weights make room by themselves where memory is short: leave out --offload_model.",
  ],
  [`${generate} --ulysses_size 8`, "Workers that share the tokens are --cp N: give it in place of --ulysses_size."],
  [`${generate} --dit_fsdp`, "Workers share the transformer's weights with --tp N: give it in place of --dit_fsdp."],
  [`${generate} --t5_cpu`, "The text encoder makes room by itself where memory is short: leave out --t5_cpu."],
  [`${generate} --image a.png`, "ditrun makes videos from text alone: leave out --image."],
  [
    "wan generate --task i2v-14B --prompt x",
    '--task is "i2v-14B"; ditrun runs text-to-video, not i2v-14B: give --model 1.3B, 14B or 2.2-T2V-A14B.',
  ],
  [`${sizes} 832`, "--width W and --height H go together: give both, or --size W*H alone."],
  [
    `${sizes} 832 --height 481`,
    "--size is 832*481, but both sides of a video must be multiples of 16: the nearest is 832*480.",
  ],
  ["--nnodes 2 profile", "--nnodes is 2, but nothing says where node 0 is: give --master-addr."],
  ["--nnodes 1:2 profile", "--nnodes is 1:2, but ditrun runs on a fixed number of hosts: give one number."],

  // Values.
  ["profile --nproc all", '--nproc is "all"; it must be a whole number of at least 1, gpu (one per GPU) or auto.'],
  ["profile --device gpu", '--device is "gpu"; it must be one of auto, cpu, cuda: a GPU is cuda.'],
  ["profile --device cdua", '--device is "cdua"; it must be one of auto, cpu, cuda: did you mean cuda.'],
  ["profile --dtype fp8", '--dtype is "fp8"; it must be one of fp32, bf16: fp8 is --fp8.'],
  ["profile --dtype bfloat16", '--dtype is "bfloat16"; it must be one of fp32, bf16: bfloat16 is bf16.'],
  [
    `${generate} --solver uni-pc`,
    '--solver is "uni-pc"; it must be one of unipc, dpm++, euler, renoise: did you mean unipc.',
  ],
  [`${generate} --frames 80`, "--frames is 80, but a video has 4n + 1 frames: choose 77 or 81."],

  // Plans and models.
  [`profile ${dry} --plan cp4-pt2`, 'There is no plan named "cp4-pt2": did you mean cp4-tp2?'],
  [`profile ${dry} --plan sigle`, 'There is no plan named "sigle": did you mean single?'],
  [`profile ${dry} --plan p.json`, "p.json could not be read: there is no such file or directory."],
  [`profile ${dry} --model dit-tny`, 'There is no model named "dit-tny": did you mean dit-tiny?'],
  [`wan profile ${dry} --model tny`, 'There is no model named "tny": did you mean tiny?'],
  [
    `wan profile ${dry} --model nope`,
    `There is no model named "nope": ${list}dit, dit-1k, dit-tiny, wan-1.3b, wan-14b, wan-`,
  ],
  [
    "wan generate --device cpu --prompt x --model Wan-AI/Wan2.1-I2V-14B-480P",
    "--model Wan-AI/Wan2.1-I2V-14B-480P is image-to-video, and ditrun runs text-to-video: give --model 1.3B, 14B or 2.2-T2V-A14B.",
  ],
  [
    `wan profile ${dry} --model tiny --nproc 997`,
    "No mesh of 997 workers fits wan-tiny, as cp997: wan-tiny has 180 tokens here, fewer than the 997 workers that share them: choose a smaller cp.",
  ],
  [
    "plan --gpu h300",
    '--gpu is "h300"; it must be one of h200, h100, a100, l40s, cpu, or a file that ends in .yaml or .json.',
  ],
  ["plan --gpu nowhere.yaml", "nowhere.yaml could not be read: there is no such file or directory."],
  ["plan --model dit --size 832*480 --gpu h100", "--size is of a video, but dit makes images: leave it out."],
  ["plan --dtype int4 --gpu h100", '--dtype is "int4"; it must be some of bf16, fp16, fp8, fp32.'],
  [
    "plan --nproc 1024 --hosts 2 --gpu h100",
    "--nproc 1024 on each of 2 hosts makes 2048 workers, and a job has at most 1024.",
  ],
  [
    `--plan auto --cp 2 profile ${dry}`,
    "--plan auto chooses the mesh: leave out --cfg, --cp and --tp, or leave out --plan.",
  ],
  [
    `wan generate --device cpu --out /nonexist/x.mp4 --prompt x`,
    "Cannot write /nonexist/x.mp4: there is no folder /nonexist.",
  ],
])("ditrun %s", async (line, sentence) => {
  expect(await main(wordsOf(line))).toBe(2);
  expect(written.stderr).toMatch(/^ditrun: .*\n$/);
  // Some sentences are longer than a table's line.
  if (/[.?]$/.test(sentence)) expect(written.stderr).toBe(`ditrun: ${sentence}\n`);
  else expect(written.stderr).toContain(`ditrun: ${sentence}`);
  expect(written.stdout).toBe("");
});
