import { DitrunError } from "../../../failure.js";
import type { TensorFile } from "../../../formats/tensor-file.js";
import type { TextEncoderModel } from "../../schema.js";

/** The text encoder's sizes, from tensors with the names of the published code. @throws DitrunError when it is no umT5 encoder. */
export function textEncoderFacts(file: TensorFile): TextEncoderModel {
  const matrix = (name: string): [number, number] => {
    const [rows, columns, ...more] = file.info(name).shape;
    if (rows !== undefined && columns !== undefined && more.length === 0) return [rows, columns];
    throw new DitrunError(
      "ERR_TENSOR_SHAPE",
      `${file.path}: tensor ${name} is no matrix; is this a umT5 text encoder?`,
    );
  };
  const [vocabulary, width] = matrix("token_embedding.weight");
  const [inner] = matrix("blocks.0.attn.q.weight");
  const [ffn] = matrix("blocks.0.ffn.fc1.weight");
  const [, heads] = matrix("blocks.0.pos_embedding.embedding.weight");
  let layers = 0;
  while (file.has(`blocks.${layers}.attn.q.weight`)) layers++;
  return { vocabulary, width, ffn, heads, headDim: inner / heads, layers };
}

export interface VaeFacts {
  /** Channels at full resolution: 96 for the published one of Wan 2.1. */
  readonly width: number;
  readonly latentChannels: number;
}

/** The VAE's sizes, from tensors with the names of the published code. @throws DitrunError when one is missing. */
export function vaeFacts(file: TensorFile): VaeFacts {
  const [, width = 0] = file.info("decoder.head.2.weight").shape;
  const [, latentChannels = 0] = file.info("decoder.conv1.weight").shape;
  return { width, latentChannels };
}

/** @throws DitrunError for a VAE that is not Wan 2.1's. */
export function requireVae21(file: TensorFile): VaeFacts {
  const facts = vaeFacts(file);
  if (facts.latentChannels === 16) return facts;
  throw new DitrunError(
    "ERR_CHECKPOINT_UNSUPPORTED",
    `${file.path} is the VAE of Wan 2.2 TI2V-5B, with ${facts.latentChannels} channels: take Wan2.1_VAE.pth, with 16.`,
  );
}
