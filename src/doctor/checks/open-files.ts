import { DitrunError } from "../../failure.js";
import { processLimit } from "../../launcher/process-limit.js";
import { checkFiles } from "../../launcher/room.js";
import { counted } from "../../text.js";
import { defineCheck } from "../check.js";
import { textOf } from "../host.js";

/** Files that may be open at once, against what a worker for each GPU needs. */
export const openFiles = defineCheck({
  ...{ name: "open-files", section: "limits", what: "Open files" },
  look(host) {
    const most = processLimit("Max open files", textOf(host, "proc/self/limits") ?? "") ?? Number.POSITIVE_INFINITY;
    return { most: Number.isFinite(most) ? most : null, workers: Math.max(1, host.gpus().length) };
  },
  judge({ most, workers }) {
    try {
      checkFiles(workers, 0, most ?? Number.POSITIVE_INFINITY);
    } catch (error) {
      if (!(error instanceof DitrunError)) throw error;
      return {
        state: "problem",
        value: `${most} at most, too few for ${counted(workers, "worker")}`,
        wayOut: "ulimit -n 4096",
      };
    }
    return { state: "ok", value: most === null ? "unlimited" : `${most} at most` };
  },
});
