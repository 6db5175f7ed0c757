import { availableParallelism } from "node:os";
import { join } from "node:path";
import { gpuIsVisible } from "../../engine/visible-gpu.js";
import { defineCheck } from "../check.js";
import { coresAllowed } from "../control-group.js";
import { isUnset } from "../environment.js";

/** What control groups allow of the cores: a CPU worker starts a thread for each core, and is held up where fewer may run. */
export const cpuLimit = defineCheck({
  ...{ name: "cpu-limit", section: "cpu", what: "CPU limit" },
  look: (host) => ({
    allowed: coresAllowed(host),
    cores: availableParallelism(),
    threads: isUnset(host.environment.OMP_NUM_THREADS) ? null : host.environment.OMP_NUM_THREADS,
    gpu: gpuIsVisible(join(host.root, "dev")),
  }),
  judge({ allowed, cores, threads, gpu }) {
    if (allowed === null || allowed >= cores) return { state: "ok", value: "none" };
    const value = `${Number(allowed.toFixed(2))} of ${cores} cores at once, by the control group`;
    if (gpu || threads !== null) return { state: "ok", value };
    return {
      ...{ state: "warning", value: `${value}, and workers on the CPU take a thread for each` },
      wayOut: `Set OMP_NUM_THREADS to ${Math.max(1, Math.floor(allowed))} for one worker, and less for more.`,
    };
  },
});
