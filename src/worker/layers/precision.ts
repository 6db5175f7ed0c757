import type { Plan } from "../../plan/schema.js";
import type { Attention } from "./attention/attention.js";

/**
 * Which of two precisions a model that holds both computes in: as its plan says (quantised), or in the plan's dtype throughout.
 * What is queued keeps the precision that it was queued in, graphs too.
 */
export interface Precision {
  quantised: boolean;
}

/** The same plan with nothing in e4m3. */
export function withoutQuantisation(plan: Plan): Plan {
  const plain = <T extends { dtype?: Plan["attention"]["dtype"] }>(part: T): T =>
    part.dtype === "e4m3" ? { ...part, dtype: undefined } : part;
  return { ...plan, attention: plain(plan.attention), ring: plain(plan.ring), linear: plain(plan.linear) };
}

/** Attention by one of two, as the precision says. They may share peer memory: all ranks use them in the same order. */
export function switchedAttention(precision: Precision, quantised: Attention, plain: Attention): Attention {
  const chosen = () => (precision.quantised ? quantised : plain);
  return {
    get queryDtype() {
      return chosen().queryDtype;
    },
    attend: (...args) => chosen().attend(...args),
    async takeWaits() {
      const waits = await quantised.takeWaits();
      const more = await plain.takeWaits();
      const steps = Math.max(waits.length, more.length);
      return Array.from({ length: steps }, (_, step) => (waits[step] ?? 0) + (more[step] ?? 0));
    },
  };
}
