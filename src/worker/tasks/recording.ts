import { readFileSync } from "node:fs";
import { hostname } from "node:os";
import type { MemoryPoint, RankClock, TraceRank } from "../../protocol/results.js";
import type { Device, Recording } from "../runtime/device.js";
import type { Store } from "../store.js";

/** Questions for the launcher's time: the quickest answer says it best. */
const QUESTIONS = 20;

/** How this rank's CLOCK_MONOTONIC stands to the launcher's: at half of the quickest round trip both are taken to be the same. */
export async function clockOf(store: Pick<Store, "time">): Promise<RankClock> {
  let best = { offsetMicroseconds: 0, residualMicroseconds: Number.POSITIVE_INFINITY };
  for (let question = 0; question < QUESTIONS; question++) {
    const before = process.hrtime.bigint();
    const theirs = await store.time();
    const residualMicroseconds = Number(process.hrtime.bigint() - before) / 2e3;
    const offsetMicroseconds = theirs - Number(before) / 1e3 - residualMicroseconds;
    if (residualMicroseconds < best.residualMicroseconds) best = { offsetMicroseconds, residualMicroseconds };
  }
  return { id: readFileSync("/proc/sys/kernel/random/boot_id", "utf8").trim(), ...best };
}

/** A recording as a rank reports it. @param store where a trace was asked for; without it only its time is told. */
export async function traceParts(
  { events, spans, beganMicroseconds }: Recording,
  store: Pick<Store, "time"> | undefined,
): Promise<Omit<TraceRank, "rank" | "device">> {
  const parts = { host: hostname(), recordedAtMicroseconds: beganMicroseconds };
  return store ? { ...parts, trace: events, spans, clock: await clockOf(store) } : { ...parts, trace: [], spans: [] };
}

/** What device memory holds, from one thing that is done to the next. */
export class MemoryPoints {
  readonly points: MemoryPoint[] = [];

  constructor(private readonly device: Device) {}

  add(after: string): void {
    this.points.push({ after, bytes: this.device.kernels.memoryUsed().now });
  }
}
