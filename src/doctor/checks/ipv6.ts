import { isIPv6 } from "node:net";
import { defineCheck } from "../check.js";
import { allocationOf } from "../host.js";
import { networkFailure, tryConnection } from "../try-network.js";

/** Whether IPv6 works here: it must where host 0 is given by such an address. */
export const ipv6 = defineCheck({
  ...{ name: "ipv6", section: "network", what: "IPv6", deadline: 5 },
  async look(host) {
    const leader = allocationOf(host)?.leader ?? null;
    try {
      await tryConnection("::1");
      return { failure: null, leader };
    } catch (error) {
      return { failure: networkFailure(error), leader };
    }
  },
  judge({ failure, leader }) {
    if (failure === null) return { state: "ok", value: "::1, connected" };
    if (leader === null || !isIPv6(leader)) return { state: "ok", value: "not on this host, so IPv4" };
    return {
      ...{ state: "problem", value: `not on this host (${failure}), and host 0 is ${leader}` },
      wayOut: "Give --master-addr an IPv4 address, or set IPv6 up.",
    };
  },
});
