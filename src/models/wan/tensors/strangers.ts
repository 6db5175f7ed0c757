import { DitrunError } from "../../../failure.js";

/** Tensors that only files of one kind have which ditrun does not read, what they are, and what to take instead. */
type Stranger = readonly [name: RegExp, what: string, instead: string];

const otherQuantisations: readonly Stranger[] = [
  [/\.weight\._(?:data|scale)$/, "quantised by optimum-quanto", "an fp8 or GGUF file of the same model"],
  [
    /\.quant_state\.|\.weight\.(?:absmax|quant_map)$|\.SCB$/,
    "quantised by bitsandbytes",
    "an fp8 or GGUF file of the same model",
  ],
  [/\.weight_scale_2$/, "in nvfp4, which needs a Blackwell GPU", "an fp8 file of the same model"],
  [/\.(?:qweight|qzeros|g_idx)$/, "quantised by GPTQ, AWQ or SVDQuant", "an fp8 or GGUF file of the same model"],
  [/\.(?:encoded_exponent|sign_mantissa)$/, "compressed as DFloat11", "the bf16 file of the same model"],
  [/\.weight_scale_inv$/, "in fp8 with a scale for each block", "an fp8 file with a scale for each tensor or row"],
];

const t2v = "Wan-AI/Wan2.1-T2V-1.3B or -14B";
const otherModels: readonly Stranger[] = [
  [
    /\.to_gate_compress\./,
    "a FastWan model trained with sparse attention (VSA)",
    "FastWan2.2-TI2V-5B-FullAttn, or a LightX2V distillation",
  ],
  [
    /\.attn_op\.local_attn\.proj_l\./,
    "a TurboWan model trained with sparse attention (SLA)",
    "the rCM model that it was made of",
  ],
  [/^casual_audio_encoder\.|^audio_injector\./, "Wan 2.2 S2V, which makes videos of speech", t2v],
  [/^face_adapter\.|^motion_encoder\.|^pose_patch_embedding\./, "Wan 2.2 Animate", t2v],
  [/^audio_proj\.audio_proj_glob/, "HuMo, which makes videos of speech", t2v],
  [/^audio_proj\.|\.audio_cross_attn\./, "a talking model (MultiTalk, InfiniteTalk or FantasyTalking)", t2v],
  [/^control_adapter\./, "Wan-Fun Camera", t2v],
  [/^ref_conv\./, "Wan 2.2-Fun Control", t2v],
  [
    /^(?:\w+\.)*(?:timestep_r|time_embedding_r|r_embedding)\./,
    "a MeanFlow distillation, which takes two times",
    "a LightX2V 4-step distillation",
  ],
];

/**
 * Refuses a file whose tensors tell that it is of a kind that ditrun does not read.
 * @param names of its tensors, without prefix. @throws DitrunError with the kind, the tensor and what to take instead.
 */
export function refuseStrangers(path: string, names: readonly string[]): void {
  for (const [pattern, what, instead] of [...otherQuantisations, ...otherModels]) {
    const name = names.find((each) => pattern.test(each));
    if (name !== undefined) refuse(path, what, `it has ${name}`, instead);
  }
}

/** The same by the channels that the patch embedding takes; those of Wan itself pass. */
export function refuseChannels(path: string, { inputs, outputs, width, image }: Channels): void {
  const because = `its patch embedding takes ${inputs} channels`;
  if (inputs === 48 && outputs === 16) refuse(path, "Wan-Fun Control", because, t2v);
  if (inputs === 32) refuse(path, "Wan-Fun Camera", because, t2v);
  if (inputs === 52) refuse(path, "Wan 2.2-Fun Control", because, t2v);
  if (inputs === 36 && image && width === 1536) refuse(path, "Wan-Fun InP", because, t2v);
  if (![16, 36, 48].includes(inputs)) refuse(path, "no Wan model that ditrun knows", because, t2v);
}

export interface Channels {
  readonly inputs: number;
  readonly outputs: number;
  readonly width: number;
  /** Whether it has an image branch, as Wan 2.1's image-to-video models. */
  readonly image: boolean;
}

/**
 * Files of causal students hold the ordinary transformer's tensors: only what stands before their names, or the file's name, tells.
 * @throws DitrunError
 */
export function refuseCausal(path: string, prefix: string): void {
  const under = /(?:^|\.)generator(?:_ema)?\./.test(prefix);
  if (!under || /bidirectional/i.test(path)) return;
  refuse(
    path,
    "a student of Self-Forcing or CausVid, most of which are causal and make a video piece by piece",
    `its tensors stand below ${prefix}`,
    "a LightX2V 4-step distillation, or CausVid's bidirectional one in a folder of that name",
  );
}

export function refuse(path: string, what: string, because: string, instead: string): never {
  throw new DitrunError(
    "ERR_CHECKPOINT_UNSUPPORTED",
    `${path} is ${what} (${because}), which ditrun does not run: take ${instead}.`,
  );
}
