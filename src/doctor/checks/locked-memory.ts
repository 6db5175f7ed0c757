import { processLimit } from "../../launcher/process-limit.js";
import { bytesInWords } from "../../text.js";
import { defineCheck } from "../check.js";
import { allocationOf, namesIn, textOf } from "../host.js";

/** Memory that may be locked: InfiniBand between hosts registers as much as it sends. */
export const lockedMemory = defineCheck({
  ...{ name: "memlock", section: "limits", what: "Locked memory" },
  look(host) {
    const most = processLimit("Max locked memory", textOf(host, "proc/self/limits") ?? "") ?? Number.POSITIVE_INFINITY;
    return {
      // JSON has no infinity.
      mostBytes: Number.isFinite(most) ? most : null,
      infiniband: namesIn(host, "sys/class/infiniband"),
      hosts: allocationOf(host)?.nodes ?? 1,
    };
  },
  judge({ mostBytes, infiniband, hosts }) {
    if (mostBytes === null) return { state: "ok", value: "unlimited" };
    const value = `${bytesInWords(mostBytes)} at most`;
    if (hosts > 1 && infiniband.length > 0) {
      return {
        ...{ state: "warning", value: `${value}, and NCCL over ${infiniband[0]} may need more` },
        wayOut: "ulimit -l unlimited; in a container --ulimit memlock=-1.",
      };
    }
    return { state: "ok", value: `${value}, enough on one host` };
  },
});
