import { DitrunError } from "../../failure.js";
import { hubToken } from "../../hub/hub-cache.js";
import { defineCheck, type Finding } from "../check.js";

interface Facts {
  /** The token itself is told to nobody. */
  readonly present: boolean;
  readonly failure: string | null;
}

/** Whether there is a token for the hub. */
export const token = defineCheck({
  ...{ name: "hub-token", section: "files", what: "Hub token" },
  async look({ environment }): Promise<Facts> {
    try {
      return { present: (await hubToken(environment)) !== undefined, failure: null };
    } catch (error) {
      if (error instanceof DitrunError) return { present: false, failure: error.message };
      throw error;
    }
  },
  judge({ present, failure }): Finding {
    if (failure !== null) return { state: "problem", value: failure, wayOut: "Unset it, or run: hf auth login" };
    return { state: "ok", value: present ? "there is one" : "none; Wan's checkpoints need none" };
  },
});
