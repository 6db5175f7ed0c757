import type { Operation } from "./operation.js";

/** What a model asks of its busiest rank under a plan, before anything runs. */
export interface OnPaper {
  /** One forward. */
  readonly forward: readonly Operation[];
  /** Device memory of a rank that runs forwards alone, as `ditrun profile` does. */
  readonly forwardBytes: number;
  /** Of a model that makes videos: a step of guidance, and the decode after the last. */
  readonly video?: { readonly step: readonly Operation[]; readonly decode: readonly Operation[] };
  /** Device memory of a rank with everything in it at once, and with what can take turns taking turns. */
  readonly bytes: number;
  readonly leastBytes: number;
}
