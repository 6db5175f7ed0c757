import { ditTraits } from "./dit/traits.js";
import type { DitModel, Model, WanModel } from "./schema.js";
import type { Traits } from "./traits.js";
import { wanTraits } from "./wan/traits.js";

/** What there is to know of a model without its family's name: the only place that tells families apart. */
export function traitsOf(model: Model): Traits {
  return isDit(model) ? ditTraits(model) : wanTraits(model);
}

export function isDit(model: Model): model is DitModel {
  return model.kind === "dit";
}

export function isWan(model: Model): model is WanModel {
  return model.kind === "wan";
}
