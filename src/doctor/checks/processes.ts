import { processesOfUser, threadsNeeded } from "../../launcher/room.js";
import { counted } from "../../text.js";
import { defineCheck } from "../check.js";
import { threadsAllowed } from "../control-group.js";

/** Threads and processes that the user and the container may have, against those of a worker for each GPU. */
export const processes = defineCheck({
  ...{ name: "processes", section: "limits", what: "Processes" },
  look(host) {
    const { most, used } = processesOfUser() ?? {};
    const ofUser = most === undefined || used === undefined || !Number.isFinite(most) ? null : { most, used };
    return { ofUser, ofContainer: threadsAllowed(host), workers: Math.max(1, host.gpus().length) };
  },
  judge({ ofUser, ofContainer, workers }) {
    const needed = threadsNeeded(workers);
    const many = `${counted(workers, "worker")} need ${needed}`;
    for (const [limit, wayOut] of [
      [ofContainer, "Raise pids.max of the control group, --pids-limit of a container."],
      [ofUser, "ulimit -u 4096"],
    ] as const) {
      if (limit === null || limit.most - limit.used >= needed) continue;
      const { most, used } = limit;
      return { state: "problem", value: `${most} threads at most, of which ${used} are there; ${many}`, wayOut };
    }
    const least = Math.min(...[ofUser, ofContainer].map((limit) => limit?.most ?? Number.POSITIVE_INFINITY));
    return { state: "ok", value: Number.isFinite(least) ? `${least} threads at most` : "no limit that matters" };
  },
});
