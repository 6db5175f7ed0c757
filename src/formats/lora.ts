import type { TensorFile } from "./tensor-file.js";

/** How a LoRA changes one parameter. Tensors are those of its file. */
export type LoraChange =
  /** W += strength · scale · up · down; up [out, rank], down [rank, in], both with a convolution's further dimensions. */
  | { readonly kind: "product"; readonly up: string; readonly down: string; readonly scale: number }
  /** W += strength · scale · tensor. */
  | { readonly kind: "sum"; readonly tensor: string; readonly scale: number }
  /** W += strength · (tensor − W). */
  | { readonly kind: "replacement"; readonly tensor: string };

/** An open LoRA file, its tensors told apart. */
export interface Lora {
  readonly file: TensorFile;
  /** By parameter, under the published code's names; those of one parameter in the order in which they apply. */
  readonly changes: ReadonlyMap<string, readonly LoraChange[]>;
  /** How many of its changes a rule leaves out, by what the model lacks. */
  readonly ignored: ReadonlyMap<string, number>;
}

/** A LoRA file as a request names it. */
export interface LoraFile {
  readonly file: string;
  readonly strength: number;
}
