import { bytesInWords } from "../../text.js";
import { defineCheck } from "../check.js";
import { memoryLeft } from "../control-group.js";
import { textOf } from "../host.js";

/** A worker alone takes some 100 MB; below the first no job starts well, below the second small models alone. */
const LEAST_BYTES = 2 ** 28;
const SCANT_BYTES = 2 ** 30;

/** Memory of the host, and what its control groups leave of it. */
export const memory = defineCheck({
  ...{ name: "memory", section: "limits", what: "Memory" },
  look(host) {
    const text = textOf(host, "proc/meminfo") ?? "";
    const bytes = (name: string) => Number(new RegExp(`^${name}:\\s*(\\d+) kB`, "m").exec(text)?.[1] ?? 0) * 1024;
    return { totalBytes: bytes("MemTotal"), availableBytes: bytes("MemAvailable"), groupBytes: memoryLeft(host) };
  },
  judge({ totalBytes, availableBytes, groupBytes }) {
    const limited = groupBytes !== null && groupBytes < availableBytes;
    const free = limited ? groupBytes : availableBytes;
    const by = limited ? ", by its control group" : "";
    const value = `${bytesInWords(free)} of ${bytesInWords(totalBytes)} free${by}`;
    if (free >= SCANT_BYTES) return { state: "ok", value };
    const wayOut = limited
      ? "Give the container or job more: --memory of docker, --mem of Slurm."
      : "End other programs, or take a host with more.";
    return { state: free < LEAST_BYTES ? "problem" : "warning", value, wayOut };
  },
});
