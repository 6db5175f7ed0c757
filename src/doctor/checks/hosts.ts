import { DitrunError } from "../../failure.js";
import { defineCheck, type Finding } from "../check.js";

interface Facts {
  readonly nodes: number;
  readonly nodeRank: number | null;
  /** Who says so, in a sentence. */
  readonly why: string;
  readonly failure: string | null;
}

/** The hosts of a job, as a scheduler's variables tell here. */
export const hosts = defineCheck({
  ...{ name: "hosts", section: "network", what: "Hosts" },
  look(host): Facts {
    try {
      const { nodes, nodeRank, why } = host.allocation();
      return { nodes, nodeRank: nodeRank ?? null, why, failure: null };
    } catch (error) {
      if (error instanceof DitrunError) return { nodes: 1, nodeRank: null, why: "", failure: error.message };
      throw error;
    }
  },
  judge({ nodes, why, failure }): Finding {
    // The message holds the way out.
    if (failure !== null) return { state: "problem", value: failure };
    if (nodes > 1) return { state: "ok", value: why };
    return { state: "ok", value: why === "" ? "this one alone: no scheduler's variables" : `this one alone. ${why}` };
  },
});
