import type { TensorFile } from "./tensor-file.js";

/** Two tensors whose product counts: up [out, rank], down [rank, in], both with a convolution's further dimensions. */
export interface LoraPair {
  readonly up: string;
  readonly down: string;
}

/** How a LoRA changes one parameter. Tensors are those of its file. */
export type LoraChange =
  /** W += strength · scale · up · down. */
  | ({ readonly kind: "product"; readonly scale: number } & LoraPair)
  /** LoHa (arXiv 2108.06098): W += strength · scale · (up₁ · down₁) ⊙ (up₂ · down₂), element by element. */
  | { readonly kind: "hadamard"; readonly pairs: readonly [LoraPair, LoraPair]; readonly scale: number }
  /** LoKr (arXiv 2309.14859): W += strength · scale · w₁ ⊗ w₂, a block w₁[i, j] · w₂ for each element of w₁; either may be a pair. */
  | {
      readonly kind: "kronecker";
      readonly factors: readonly [string | LoraPair, string | LoraPair];
      readonly scale: number;
    }
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
