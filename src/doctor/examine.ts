import { existsSync } from "node:fs";
import { join, resolve } from "node:path";
import { z } from "zod";
import { findKernels } from "../engine/kernel-module.js";
import { gpuIsVisible } from "../engine/visible-gpu.js";
import { type Environment, isUnset } from "./environment.js";
import { type Answer, ExaminedProcess } from "./examined-process.js";

const infoSchema = z.object({
  name: z.string(),
  module: z.enum(["cpu", "cuda"]),
  computeCapability: z.string().nullable(),
  memoryBytes: z.number(),
  freeBytes: z.number(),
  libraries: z.record(z.string(), z.string().nullable()),
});
const openedSchema = z.object({ devices: z.int(), info: infoSchema.nullable(), libraries: z.array(z.string()) });
const nothingSchema = z.object({});
const ratesSchema = z.object({
  ...{ edge: z.int(), dtype: z.enum(["bf16", "fp32"]), gemmTflops: z.number(), copyGBs: z.number() },
});

/** One way between two workers. */
export interface ExaminedPair {
  readonly from: number;
  readonly to: number;
  /** Why `to` cannot read what `from` lends. */
  readonly failure?: string;
  /** 10^9 bytes a second, where rates are measured. */
  readonly gigabytesPerSecond: number | null;
}

/** What a worker would find. */
export interface ExaminedRank {
  readonly rank: number;
  readonly name: string;
  /** `9.0`; null on a CPU. */
  readonly capability: string | null;
  readonly memoryBytes: number;
  readonly freeBytes: number;
  /** Why the device cannot be opened, or computes wrong things or nothing. */
  readonly failure?: string;
  /** Why products of matrices fail, on a GPU by cuBLASLt. */
  readonly productFailure?: string;
  readonly rates?: z.infer<typeof ratesSchema>;
  /** Why there are none, where they were to be measured. */
  readonly ratesFailure?: string;
}

/** A kernel module that was tried. */
export interface ExaminedModule {
  /** The file; undefined where there is none. */
  readonly file?: string;
  /** Who chose it. */
  readonly by?: "DITRUN_KERNELS" | "build" | "package";
  /** Why there is none and what to do, or why it cannot be used. */
  readonly missing?: string;
  readonly failure?: string;
  /** It is there, and was not tried: there is no GPU, or DITRUN_KERNELS names another. */
  readonly untried?: "no GPU" | "replaced";
  /** What it runs on, where it was opened and sees a device. */
  readonly kind?: "cpu" | "cuda";
  /** Devices that it sees. */
  readonly devices: number;
  readonly ranks: readonly ExaminedRank[];
  readonly pairs: readonly ExaminedPair[];
  /** Versions of cuBLASLt and NCCL that it opened, and the files of NVIDIA's that were opened then. */
  readonly versions: Readonly<Record<string, string | null>>;
  readonly libraries: readonly string[];
}

interface Options {
  readonly environment: Environment;
  readonly root: string;
  readonly bench: boolean;
}

/** Of the questions to one process; where rates are measured it waits for the others' meanwhile. */
const DEADLINE_MILLISECONDS = 50_000;
const DEADLINE_MILLISECONDS_TIMED = 110_000;
/** Workers of a CPU that are tried with each other. */
const CPU_RANKS = 2;
/** More GPUs than a host has. */
const MOST_RANKS = 64;
const LENT_BYTES = 2 ** 16;
const LENT_BYTES_TIMED = 2 ** 26;

const untouched = { devices: 0, ranks: [], pairs: [], versions: {}, libraries: [] } as const;

/** Tries the modules that `--device` would take, each once: a process for each GPU, or two for the CPU, which also read each other's memory. */
export function moduleExaminer(options: Options): (device: "cpu" | "cuda") => Promise<ExaminedModule> {
  const seen = new Map<string, Promise<Seen>>();
  const examine = (file: string) => {
    const known = seen.get(file) ?? examineFile(file, options);
    seen.set(file, known);
    return known;
  };
  return async (device) => {
    const { DITRUN_KERNELS: named } = options.environment;
    if (!isUnset(named)) return ofNamed(device, resolve(named), examine);
    const found = findKernels(device);
    if ("missing" in found) return { ...untouched, missing: found.missing };
    const { file, built } = found;
    const by = built ? "build" : "package";
    const visible = gpuIsVisible(join(options.root, "dev"));
    if (device === "cuda" && !visible) return { ...untouched, file, by, untried: "no GPU" };
    return { file, by, ...(await examine(file)) };
  };
}

/** The module that DITRUN_KERNELS names stands for that of its own device alone; one that cannot be used, for the CPU's. */
async function ofNamed(
  device: "cpu" | "cuda",
  file: string,
  examine: (file: string) => Promise<Seen>,
): Promise<ExaminedModule> {
  const by = "DITRUN_KERNELS";
  const seen: Seen = existsSync(file) ? await examine(file) : { ...untouched, failure: `there is no ${file}.` };
  if ((seen.kind ?? "cpu") !== device) return { ...untouched, by, file, untried: "replaced" };
  return { file, by, ...seen };
}

type Seen = Omit<ExaminedModule, "file" | "by" | "missing" | "untried">;

async function examineFile(file: string, { environment, bench }: Options): Promise<Seen> {
  const start = (rank: number) =>
    new ExaminedProcess(file, rank, environment, bench ? DEADLINE_MILLISECONDS_TIMED : DEADLINE_MILLISECONDS);
  const processes = [start(0)];
  const open = (process: ExaminedProcess) => process.ask({ ask: "open" }, openedSchema);
  try {
    const [first] = processes;
    const answer = first === undefined ? { failure: "" } : await open(first);
    if ("failure" in answer) return { ...untouched, failure: answer.failure };
    const { devices, info, libraries } = answer.value;
    if (devices === 0 || info === null) return { ...untouched, kind: "cuda", libraries };
    const count = info.module === "cpu" ? CPU_RANKS : Math.min(devices, MOST_RANKS);
    for (let rank = 1; rank < count; rank++) processes.push(start(rank));
    const others = await Promise.all(processes.slice(1).map(open));
    const ranks: ExaminedRank[] = [];
    for (const [rank, process] of processes.entries()) {
      ranks.push(await examineRank(process, rank, rank === 0 ? answer : (others[rank - 1] ?? answer), bench));
    }
    const pairs = await examinePairs(processes, bench ? LENT_BYTES_TIMED : LENT_BYTES, bench);
    return { kind: info.module, devices, ranks, pairs, versions: info.libraries, libraries };
  } finally {
    await Promise.all(processes.map((process) => process.close()));
  }
}

async function examineRank(
  process: ExaminedProcess,
  rank: number,
  opened: Answer<z.infer<typeof openedSchema>>,
  bench: boolean,
): Promise<ExaminedRank> {
  const info = "value" in opened ? opened.value.info : null;
  const { name = "", computeCapability: capability = null, memoryBytes = 0, freeBytes = 0 } = info ?? {};
  const told = { rank, name, capability, memoryBytes, freeBytes };
  if ("failure" in opened) return { ...told, failure: opened.failure };
  const sum = await process.ask({ ask: "sum" }, nothingSchema);
  if ("failure" in sum) return { ...told, failure: sum.failure };
  const product = await process.ask({ ask: "product" }, nothingSchema);
  const rates = bench ? await process.ask({ ask: "rates" }, ratesSchema) : undefined;
  return {
    ...told,
    ...("failure" in product && { productFailure: product.failure }),
    ...(rates && ("value" in rates ? { rates: rates.value } : { ratesFailure: rates.failure })),
  };
}

/** Has each process read what all others lend. */
async function examinePairs(
  processes: readonly ExaminedProcess[],
  bytes: number,
  timed: boolean,
): Promise<ExaminedPair[]> {
  if (processes.length < 2) return [];
  const lent = await Promise.all(
    processes.map((process, rank) =>
      process.ask({ ask: "lend", bytes, value: rank + 1 }, z.object({ handle: z.string() })),
    ),
  );
  const pairs: ExaminedPair[] = [];
  const borrowed = z.object({ gigabytesPerSecond: z.number().nullable() });
  for (const [to, process] of processes.entries()) {
    for (const [from, lender] of lent.entries()) {
      if (from === to) continue;
      const answer =
        "failure" in lender
          ? lender
          : await process.ask({ ask: "borrow", handle: lender.value.handle, bytes, value: from + 1, timed }, borrowed);
      const rate = "value" in answer ? answer.value.gigabytesPerSecond : null;
      pairs.push({ from, to, gigabytesPerSecond: rate, ...("failure" in answer && { failure: answer.failure }) });
    }
  }
  return pairs;
}
