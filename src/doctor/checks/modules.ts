import { join } from "node:path";
import { gpuIsVisible } from "../../engine/visible-gpu.js";
import { type Check, defineCheck, type Finding } from "../check.js";
import type { ExaminedModule } from "../examine.js";
import { sentence, shortPath } from "../words.js";

type Kept = "file" | "by" | "missing" | "failure" | "untried" | "devices";

interface Facts extends Pick<ExaminedModule, Kept> {
  /** Whether the driver shows a GPU. */
  readonly gpu: boolean;
  /** What a worker of it could not do. */
  readonly rankFailure?: string;
}

const choosers = {
  DITRUN_KERNELS: "which DITRUN_KERNELS names",
  build: "built here",
  package: "of the release",
} as const;

function moduleCheck(device: "cpu" | "cuda") {
  const name = device === "cpu" ? "CPU" : "CUDA";
  return defineCheck({
    ...{
      name: device === "cpu" ? "cpu-module" : "cuda-module",
      section: "kernels",
      what: `${name} module`,
      deadline: 120,
    },
    async look(host): Promise<Facts> {
      const { ranks, pairs: _, versions: __, libraries: ___, ...seen } = await host.module(device);
      const broken = ranks.find((rank) => rank.failure ?? rank.productFailure);
      // Of GPUs other checks tell.
      const rankFailure = device === "cpu" ? (broken?.failure ?? broken?.productFailure) : undefined;
      return { ...seen, gpu: gpuIsVisible(join(host.root, "dev")), ...(rankFailure !== undefined && { rankFailure }) };
    },
    judge: (facts) => judgeModule(facts, device),
  });
}

function judgeModule(facts: Facts, device: "cpu" | "cuda"): Finding {
  const { file, by = "package", missing, failure, untried, gpu, rankFailure } = facts;
  if (untried === "replaced") return { state: "ok", value: "not looked at: DITRUN_KERNELS names another" };
  if (missing !== undefined) {
    if (device === "cpu") return { state: "problem", value: "there is none", wayOut: missing };
    if (!gpu) return { state: "ok", value: "there is none, and no GPU either" };
    return { state: "warning", value: "there is none, so the GPU is not used", wayOut: missing };
  }
  const shown = `${shortPath(file ?? "")}, ${choosers[by]}`;
  const broken = failure ?? rankFailure;
  if (broken !== undefined) {
    return {
      state: "problem",
      value: sentence(withoutWayOut(broken)),
      wayOut: by === "DITRUN_KERNELS" ? "Unset DITRUN_KERNELS." : wayOut[by],
    };
  }
  if (untried === "no GPU") return { state: "ok", value: `${shown}; no GPU to try it on` };
  return { state: "ok", value: `${shown}, tried` };
}

/** The way out that the module's own words end in is said once, below. */
function withoutWayOut(text: string): string {
  return text.replace(/(?:\. Build|: rebuild) it with .*$/, "");
}

const wayOut = {
  build: "Build it anew: npm run build -- --kernels. A GPU's driver may be too old for it as well.",
  package: "Install ditrun again. A GPU's driver may be too old for it as well: nvidia-smi shows its CUDA.",
} as const;

export const cpuModule = moduleCheck("cpu");
export const cudaModule = moduleCheck("cuda");
export const modules: readonly Check[] = [cpuModule, cudaModule];
