import type { LayerRule, Plan } from "../plan/schema.js";
import type { LatentSize } from "./schema.js";
import type { OnPaper } from "./walk/on-paper.js";
import type { Ground } from "./walk/walk.js";

/** A layer that a plan may split: its module path, named as in the model's checkpoints, inputs and outputs. */
export interface LinearLayer {
  path: string;
  inputs: number;
  outputs: number;
}

/** What plans, costs and tables ask of a model, whatever its family. */
export interface Traits {
  /** What one forward makes, for tables. */
  readonly makes: "images" | "forwards";
  /** Transformer blocks, each with one self-attention over all tokens. */
  readonly blocks: number;
  /** How layers are split over tp where a plan says nothing. */
  readonly layerRules: readonly LayerRule[];
  /** The family gathers over the whole mesh, not over tp alone. */
  readonly gathersOverMesh: boolean;
  /** Tokens of one forward. @param latent of a video; 81 frames of 832 × 480 where it is left out. */
  tokens(latent?: LatentSize): number;
  /** The linear layers that a plan's rules may match. */
  linearLayers(): LinearLayer[];
  /** Weights and biases outside the layers of linearLayers. */
  otherParameters(): number;
  /** What keeps every kernel from computing the model, and what would mend it; width and heads are checked for all families. */
  misfit(): string | undefined;
  /** Work and memory of the busiest rank under a plan that fits. @param latent as of `tokens`. */
  onPaper(plan: Plan, latent?: LatentSize, ground?: Ground): OnPaper;
  /** Refuses what a plan may ask of another family. @throws DitrunError with the value and the way out. */
  checkPlan(plan: Plan): void;
}
