import { DitrunError } from "../failure.js";

/** What an option of another program is here. */
export type Foreign =
  /** Ours of the same meaning. `value` turns theirs into ours. */
  | { readonly to: string; readonly value?: (text: string) => string }
  /** A side of the video: both together are --size. */
  | { readonly side: "width" | "height" }
  /** None of ours: what to do instead. */
  | { readonly sentence: string };

const to = (name: string, value?: (text: string) => string): Foreign => ({ to: name, ...(value && { value }) });
const no = (sentence: string): Foreign => ({ sentence });

const onlyText = "ditrun makes videos from text alone";

/** Wan's --task names a model and what it is to do. */
function modelOfTask(task: string): string {
  const [, size] = /^t2v-([\d.]+B)$/i.exec(task) ?? [];
  if (size !== undefined) return size;
  if (/^t2v-a14b$/i.test(task)) return "2.2-T2V-A14B";
  const is = /^(i2v|flf2v|vace|t2i|ti2v|s2v|animate)/i.exec(task) ? `, not ${task}` : "";
  throw new DitrunError(
    "ERR_OPTION_VALUE",
    `--task is "${task}"; ditrun runs text-to-video${is}: give --model 1.3B, 14B or 2.2-T2V-A14B.`,
  );
}

/**
 * Options that people know from torchrun, from Wan's generate.py, and from diffusers and the servers around it. An option of
 * our own is never looked up here.
 */
export const foreignOptions: Readonly<Record<string, Foreign>> = {
  // torchrun
  "nproc-per-node": to("nproc"),

  // Wan's generate.py
  task: to("model", modelOfTask),
  "sample-steps": to("steps"),
  "sample-shift": to("shift"),
  "sample-solver": to("solver"),
  "sample-guide-scale": to("guide-scale"),
  "frame-num": to("frames"),
  "base-seed": to("seed"),
  "save-file": to("out"),
  "ulysses-size": no("Workers that share the tokens are --cp N: give it in place of --ulysses_size."),
  "ring-size": no("Workers that share the tokens are --cp N: give it in place of --ring_size."),
  "dit-fsdp": no("Workers share the transformer's weights with --tp N: give it in place of --dit_fsdp."),
  "t5-fsdp": no("Workers share the text encoder's weights with --tp N: give it in place of --t5_fsdp."),
  "t5-cpu": no("The text encoder makes room by itself where memory is short: leave out --t5_cpu."),
  "offload-model": no("Weights make room by themselves where memory is short: leave out --offload_model."),
  "convert-model-dtype": no("Weights are converted as they are loaded: leave out --convert_model_dtype."),
  "use-prompt-extend": no("ditrun takes a prompt as it is: leave out --use_prompt_extend."),
  image: no(`${onlyText}: leave out --image.`),
  "image-path": no(`${onlyText}: leave out --image-path.`),
  "first-frame": no(`${onlyText}: leave out --first_frame.`),
  "last-frame": no(`${onlyText}: leave out --last_frame.`),
  "src-video": no(`${onlyText}: leave out --src_video.`),

  // diffusers, and servers of diffusion models
  "num-inference-steps": to("steps"),
  "guidance-scale": to("guide-scale"),
  "flow-shift": to("shift"),
  "num-frames": to("frames"),
  width: { side: "width" },
  height: { side: "height" },
  output: to("out"),
  "output-path": to("out"),
  "model-id": to("model"),
  "model-path": to("model"),
  "num-gpus": to("nproc"),
  "tp-size": to("tp"),
  "tensor-parallel-size": to("tp"),
  "context-parallel-size": to("cp"),
  "ulysses-degree": no("Workers that share the tokens are --cp N: give it in place of --ulysses-degree."),
  "ring-degree": no("Workers that share the tokens are --cp N: give it in place of --ring-degree."),
  "enable-cfg-parallel": no(
    "A text for each half of the workers is --cfg 2: give it in place of --enable-cfg-parallel.",
  ),
};

/** What an option of another program is here. @param name without dashes, with `-` for `_`. */
export function foreignOption(name: string): Foreign | undefined {
  return Object.hasOwn(foreignOptions, name) ? foreignOptions[name] : undefined;
}
