import { type Command, defineCommand } from "../command.js";
import { accuracyOptions, wanAccuracyOptions } from "../options/accuracy.js";
import { clientDownloadOptions, clientGenerateOptions, clientListOptions, clientOptions } from "../options/client.js";
import { compareOptions } from "../options/compare.js";
import { convertOptions } from "../options/convert.js";
import { doctorOptions } from "../options/doctor.js";
import { generateOptions } from "../options/generate.js";
import { inspectOptions } from "../options/inspect.js";
import { keyOptions } from "../options/key.js";
import { launchOptions } from "../options/launch.js";
import { linksOptions } from "../options/links.js";
import { modelRunOptions } from "../options/model-run.js";
import { outputOptions } from "../options/output.js";
import { planOptions } from "../options/plan.js";
import { profileOptions, wanProfileOptions } from "../options/profile.js";
import { ownRunOptions, runJobOptions, runOptions } from "../options/run.js";
import { serveOptions } from "../options/serve.js";

const examples = {
  bash: { line: "source <(ditrun completion bash)", describe: "For this shell; add the line to ~/.bashrc for all" },
  zsh: { line: "source <(ditrun completion zsh)", describe: "For this shell; add the line to ~/.zshrc for all" },
  fish: {
    line: "ditrun completion fish > ~/.config/fish/completions/ditrun.fish",
    describe: "For every shell from now on",
  },
};

/** Every command, in the order of --help. */
export const commands: readonly Command[] = [
  defineCommand({
    name: "profile",
    summary: "Measure a model's forward under a plan: latency, throughput, memory, time by phase and by kernel",
    example: {
      line: "ditrun profile --nproc 8 --cp 4 --tp 2",
      describe: "Eight workers: four share the tokens, in pairs",
    },
    options: { ...profileOptions, ...modelRunOptions },
    load: async () => (await import("./profile.js")).profile,
  }),
  defineCommand({
    name: "accuracy",
    summary: "Compare a plan's output with one device's, or with a recorded one; exit code 1 above the limits",
    example: { line: "ditrun accuracy --plans cp2,tp2,cp4-tp2", describe: "Three plans, each against one device" },
    options: { ...accuracyOptions, ...modelRunOptions },
    load: async () => (await import("./accuracy.js")).accuracy,
  }),
  defineCommand({
    name: "wan generate",
    summary: "Make a video from a prompt with Wan 2.1",
    example: {
      line: 'ditrun wan generate --model tiny --prompt "A red car" --nproc 2',
      describe: "Two workers: one for the prompt, one for the negative prompt",
    },
    options: { ...generateOptions, ...modelRunOptions },
    load: async () => (await import("./wan.js")).wanGenerate,
  }),
  defineCommand({
    name: "serve",
    summary: "Make videos for clients over HTTP, as OpenAI's do it, on a model that stays loaded",
    example: {
      line: "ditrun serve --model tiny --nproc 2",
      describe: "For this machine alone, at http://127.0.0.1:8000",
    },
    options: serveOptions,
    load: async () => (await import("./serve.js")).serve,
  }),
  defineCommand({
    name: "client generate",
    summary: "Have a server make a video, wait for it, and get its file",
    example: {
      line: 'ditrun client generate --prompt "A red car" --out car.mp4',
      describe: "By the server on this machine; Ctrl-C cancels the video",
    },
    options: clientGenerateOptions,
    load: async () => (await import("./client.js")).clientGenerate,
  }),
  defineCommand({
    name: "client list",
    summary: "List a server's videos",
    example: { line: "ditrun client list --url http://gpu1:8000", describe: "The 20 newest" },
    options: clientListOptions,
    load: async () => (await import("./client.js")).clientList,
  }),
  defineCommand({
    name: "client get",
    summary: "Say how far videos of a server are",
    example: { line: "ditrun client get video_019a", describe: "One video" },
    options: clientOptions,
    operands: "ID...",
    load: async () => (await import("./client.js")).clientGet,
  }),
  defineCommand({
    name: "client download",
    summary: "Get the file of a server's video",
    example: { line: "ditrun client download video_019a --out car.mp4", describe: "Once it is completed" },
    options: clientDownloadOptions,
    operands: "ID",
    load: async () => (await import("./client.js")).clientDownload,
  }),
  defineCommand({
    name: "client cancel",
    summary: "End videos of a server at their next step",
    example: { line: "ditrun client cancel video_019a", describe: "One that waits or is being made" },
    options: clientOptions,
    operands: "ID...",
    load: async () => (await import("./client.js")).clientCancel,
  }),
  defineCommand({
    name: "client delete",
    summary: "Remove videos of a server with their files",
    example: { line: "ditrun client delete video_019a", describe: "One, which is cancelled where it is not done" },
    options: clientOptions,
    operands: "ID...",
    load: async () => (await import("./client.js")).clientDelete,
  }),
  defineCommand({
    name: "wan profile",
    summary: "Measure one forward of Wan's transformer with random weights",
    example: { line: "ditrun wan profile --model tiny --nproc 2 --cp 2", describe: "Two workers share the tokens" },
    options: { ...wanProfileOptions, ...modelRunOptions },
    load: async () => (await import("./wan-profile.js")).wanProfile,
  }),
  defineCommand({
    name: "wan accuracy",
    summary: "Compare one step of guidance under a plan with one device's, with random weights",
    example: {
      line: "ditrun wan accuracy --model tiny --nproc 4 --cfg 2 --cp 2",
      describe: "Guidance and tokens divided over four workers",
    },
    options: { ...wanAccuracyOptions, ...modelRunOptions },
    load: async () => (await import("./accuracy.js")).wanAccuracy,
  }),
  defineCommand({
    name: "plan",
    summary: "Rank every way to share a model among workers, by predicted time, memory and communication",
    example: { line: "ditrun plan --model 14B --nproc 8 --gpu h100", describe: "Runs nothing, and needs no GPU" },
    options: planOptions,
    load: async () => (await import("./plan.js")).plan,
  }),
  defineCommand({
    name: "links",
    summary: "Measure all-reduce, ring shift and halo exchange between the workers, over peer copies and NCCL",
    example: { line: "ditrun links --nproc 8", describe: "What the links between eight workers carry" },
    options: { ...linksOptions, ...launchOptions, ...outputOptions },
    load: async () => (await import("./links.js")).links,
  }),
  defineCommand({
    name: "compare",
    summary: "Compare two results, two videos or two dumps: what changed, by how much, and what explains it",
    example: { line: "ditrun compare before.json after.json --fail-above 3", describe: "Two profiles, in CI" },
    options: compareOptions,
    operands: "A B",
    load: async () => (await import("./compare.js")).compare,
  }),
  defineCommand({
    name: "doctor",
    summary: "Try what ditrun needs of this host, and say what to do about what is missing",
    example: { line: "ditrun doctor", describe: "Everything, in a second or two" },
    options: doctorOptions,
    load: async () => (await import("./doctor.js")).doctor,
  }),
  defineCommand({
    name: "inspect",
    summary:
      "Say what files of weights are, from their headers: model, names, dtypes, scales, and what is not understood",
    example: {
      line: "ditrun inspect models/wan-tiny/Wan2.1_VAE.pth",
      describe: "The VAE of the small checkpoint",
    },
    options: inspectOptions,
    operands: "FILE...",
    load: async () => (await import("./inspect.js")).inspect,
  }),
  defineCommand({
    name: "convert",
    summary: "Write a model's transformer as one safetensors file that loads as it is, with LoRAs merged into it",
    example: {
      line: "ditrun convert --to bf16 --model tiny tiny-bf16.safetensors",
      describe: "The small checkpoint in bf16",
    },
    options: convertOptions,
    operands: "OUT",
    operandsAre: "written",
    load: async () => (await import("./convert.js")).convert,
  }),
  defineCommand({
    name: "run",
    summary: "Start any program, one process a rank, with torchrun's options and variables",
    example: { line: "ditrun run --nproc 8 train.py --lr 1e-3", describe: "Eight ranks of a PyTorch script" },
    options: { ...runOptions, ...outputOptions },
    rest: "PROGRAM [ARGUMENTS]",
    environment: ownRunOptions,
    jobOptions: runJobOptions,
    load: async () => (await import("./run.js")).runProgram,
  }),
  defineCommand({
    name: "key",
    summary: "Make a key for the hosts of a job, so that nobody else joins it",
    example: { line: "export DITRUN_JOB_KEY=$(ditrun key)", describe: "In a batch script, before srun" },
    options: keyOptions,
    load: async () => (await import("./key.js")).key,
  }),
  ...(["bash", "zsh", "fish"] as const).map((shell) =>
    defineCommand({
      name: `completion ${shell}`,
      summary: `Print a script for ${shell} that completes commands, options, plans and models`,
      example: examples[shell],
      options: {},
      load: async () => (await import("./completion.js")).completion(shell, commands),
    }),
  ),
];
