import { defineCheck } from "../check.js";
import { networkFailure, tryConnection } from "../try-network.js";

/** Whether processes of this host reach each other: workers join the launcher so. */
export const loopback = defineCheck({
  ...{ name: "loopback", section: "network", what: "Loopback", deadline: 5 },
  async look() {
    try {
      await tryConnection("127.0.0.1");
      return { failure: null };
    } catch (error) {
      return { failure: networkFailure(error) };
    }
  },
  judge({ failure }) {
    if (failure === null) return { state: "ok", value: "127.0.0.1, connected" };
    return {
      ...{ state: "problem", value: `127.0.0.1 cannot be reached: ${failure}` },
      wayOut: "Set the interface up: ip link set lo up.",
    };
  },
});
