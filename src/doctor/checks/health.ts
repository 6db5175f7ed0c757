import { defineCheck } from "../check.js";
import { ranges } from "../words.js";

/** ECC, MIG and power limits, which nvidia-smi tells; errors of memory are a warning. */
export const health = defineCheck({
  ...{ name: "health", section: "gpus", what: "Health", deadline: 30 },
  async look(host) {
    if (host.gpus().length === 0) return { gpus: [], asked: false };
    const gpus = await host.smi();
    return { gpus: gpus ?? [], asked: gpus !== undefined };
  },
  judge({ gpus, asked }) {
    if (!asked) return { state: "ok", value: "nothing to ask: there is no GPU, or no nvidia-smi" };
    const failing = gpus.flatMap(({ uncorrected = 0 }, index) => (uncorrected > 0 ? [index] : []));
    if (failing.length > 0) {
      return {
        ...{ state: "warning", value: `memory of GPU ${ranges(failing)} has had errors that could not be corrected` },
        wayOut: "Results may be wrong. Take other GPUs, and have these reset.",
      };
    }
    const where = (of: (gpu: (typeof gpus)[number]) => boolean) => {
      const which = gpus.flatMap((gpu, index) => (of(gpu) ? [index] : []));
      return which.length === 0 ? "" : which.length === gpus.length ? "on" : `on for GPU ${ranges(which)}`;
    };
    const limited = gpus.flatMap(({ powerLimit = 0, usualPowerLimit = 0 }, index) =>
      powerLimit < usualPowerLimit ? [`${powerLimit} of ${usualPowerLimit} W on GPU ${index}`] : [],
    );
    const power = gpus[0]?.powerLimit;
    return {
      state: "ok",
      value: [
        `ECC ${where(({ eccOn }) => eccOn === true) || "off"}`,
        `MIG ${where(({ migOn }) => migOn === true) || "off"}`,
        limited.length > 0 ? `power limit ${limited.join(", ")}` : power === undefined ? "" : `power limit ${power} W`,
      ]
        .filter((part) => part !== "")
        .join(", "),
    };
  },
});
