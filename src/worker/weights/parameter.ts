/** How a parameter is drawn when weights are random: as torch.nn initialises the module that it belongs to. */
export type Init =
  /** Uniform in around ± bound; around 0 if absent. */
  | { readonly kind: "uniform"; readonly bound: number; readonly around?: number }
  | { readonly kind: "normal"; readonly std: number }
  | { readonly kind: "constant"; readonly value: number };

/** One parameter of a model, as the checkpoint stores it. */
export interface Parameter {
  readonly name: string;
  /** As stored; a convolution's kernel is seen as the matrix [shape[0], the rest]. */
  readonly shape: readonly number[];
  readonly init: Init;
}
