import { counted } from "../../text.js";
import { defineCheck } from "../check.js";
import { grouped, ranges } from "../words.js";

/** The oldest compute capability that the CUDA module has code for (kernels/cuda/CMakeLists.txt). */
const LEAST = 8;

/** Whether the module's kernels run on each GPU: one of them is launched there, and its result is looked at. */
export const capability = defineCheck({
  ...{ name: "capability", section: "gpus", what: "Kernels run", deadline: 120 },
  async look(host) {
    const { ranks } = await host.module("cuda");
    return {
      ranks: ranks.map(({ rank, name, capability: has, failure }) => ({ rank, name, capability: has, failure })),
    };
  },
  judge({ ranks }) {
    const broken = ranks.filter(({ failure }) => failure !== undefined);
    const [first] = broken;
    if (first) {
      const which = ranges(broken.map(({ rank }) => rank));
      const old = Number.parseInt(first.capability ?? `${LEAST}`, 10) < LEAST || /needs 8\.0/.test(first.failure ?? "");
      return {
        ...{ state: "problem", value: `GPU ${which}: ${first.failure}` },
        wayOut: old
          ? "Take newer GPUs, with CUDA_VISIBLE_DEVICES, or --device cpu."
          : "Look at nvidia-smi and dmesg. Without this GPU: CUDA_VISIBLE_DEVICES.",
      };
    }
    if (ranks.length === 0) return { state: "ok", value: "no GPU to try them on" };
    const kinds = [...grouped(ranks, ({ capability: has }) => has ?? "").keys()];
    return { state: "ok", value: `tried on ${counted(ranks.length, "GPU")}; ${kinds.map(describe).join("; ")}` };
  },
});

function describe(version: string): string {
  const major = Number.parseInt(version, 10);
  if (version === "9.0") return "compute capability 9.0, with kernels of its own";
  if (major === LEAST) return `compute capability ${version}, with kernels for 8.0`;
  return `compute capability ${version}, with kernels for 8.0 that the driver translates`;
}
