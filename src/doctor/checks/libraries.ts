import { existsSync, realpathSync } from "node:fs";
import { dirname } from "node:path";
import { type Check, defineCheck, type Finding } from "../check.js";
import { isUnset } from "../environment.js";
import { allocationOf } from "../host.js";
import { sentence } from "../words.js";

interface Facts {
  /** GPUs that a worker sees, and hosts of the job. */
  readonly gpus: number;
  readonly hosts: number;
  /** What the module has opened; null where it has not. */
  readonly version: string | null;
  readonly file: string | null;
  /** The variable that may name the file, and LD_LIBRARY_PATH. */
  readonly chosen: string | null;
  readonly searched: readonly string[];
  /** What the module says of using it. */
  readonly failure: string | null;
}

interface Library {
  readonly name: "cublaslt" | "nccl";
  readonly what: string;
  /** In ditrun_device_info. */
  readonly key: "cublasLt" | "nccl";
  readonly variable: "DITRUN_CUBLASLT" | "DITRUN_NCCL";
  readonly packages: string;
  /** Why it may be left out, where it may. */
  unneeded(facts: Facts): string | undefined;
}

/** A library that the CUDA module opens at run time: which file that was, and why that one. */
function libraryCheck({ name, what, key, variable, packages, unneeded }: Library) {
  return defineCheck({
    ...{ name, section: "kernels", what, deadline: 120 },
    async look(host): Promise<Facts> {
      const { devices, versions, libraries, ranks } = await host.module("cuda");
      const { [variable]: chosen, LD_LIBRARY_PATH: path = "" } = host.environment;
      return {
        ...{ gpus: devices, hosts: allocationOf(host)?.nodes ?? 1, version: versions[key] ?? null },
        file: libraries.find((each) => each.includes(`/lib${key}.so`)) ?? null,
        chosen: isUnset(chosen) ? null : chosen,
        // The kernel tells of files by their real names.
        searched: path.split(":").flatMap((folder) => (existsSync(folder) ? [realpathSync(folder)] : [])),
        failure: key === "cublasLt" ? (ranks.find((rank) => rank.productFailure)?.productFailure ?? null) : null,
      };
    },
    judge(facts): Finding {
      const { gpus, version, file, chosen, searched, failure } = facts;
      if (gpus === 0) return { state: "ok", value: "not needed without a GPU" };
      const wayOut = `Install ${packages}, add its folder to LD_LIBRARY_PATH, or set ${variable} to the file.`;
      if (version === null && chosen !== null)
        return {
          state: "problem",
          value: `${variable}=${chosen} cannot be opened`,
          wayOut: `Unset ${variable}, or name the file of ${what}.`,
        };
      if (version !== null && failure === null) {
        return {
          state: "ok",
          value: `${version}, ${file ?? "a file that is not told"}, ${why(file, chosen, searched, variable)}`,
        };
      }
      const spared = unneeded(facts);
      if (version === null && spared !== undefined) return { state: "ok", value: `not found; ${spared}` };
      return { state: "problem", value: failure === null ? "not found" : sentence(failure), wayOut };
    },
  });
}

function why(file: string | null, chosen: string | null, searched: readonly string[], variable: string): string {
  if (chosen !== null) return `by ${variable}`;
  const folder = dirname(file ?? "");
  if (searched.includes(folder)) return "by LD_LIBRARY_PATH";
  return folder.startsWith("/usr/local/cuda") ? "in CUDA's own folder" : "by the system's loader";
}

export const cublaslt = libraryCheck({
  ...{
    name: "cublaslt",
    what: "cuBLASLt",
    key: "cublasLt",
    variable: "DITRUN_CUBLASLT",
    packages: "libcublas of CUDA 13 or 12",
  },
  unneeded: () => undefined,
});

export const nccl = libraryCheck({
  ...{ name: "nccl", what: "NCCL", key: "nccl", variable: "DITRUN_NCCL", packages: "libnccl2" },
  unneeded: ({ hosts }) => (hosts > 1 ? undefined : "only plans over NCCL and several hosts need it"),
});

export const libraries: readonly Check[] = [cublaslt, nccl];
