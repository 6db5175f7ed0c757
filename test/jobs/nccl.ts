import { resolve } from "node:path";

/** What lets CPU workers run plans over NCCL: its calls on host memory (test/nccl-stand-in). */
export const standInEnvironment = { DITRUN_CPU_NCCL: resolve("build/nccl-stand-in/libnccl_stand_in.so") };
