import Table from "cli-table3";
import type { DitResult, Headline, LinkResult, WanResult } from "./results.js";

/** A table per part that was measured, then what failed. */
export function headlineTables({ gpus, device, commit, date, nvidiaSmi, seconds, ...measured }: Headline): string {
  const { dit, wan, links, failures, fullSteps } = measured;
  return [
    `${gpus} × ${nvidiaSmi?.split("\n")[0] ?? device}; commit ${commit ?? "not known"}; ${date}`,
    ...(dit.length > 0 ? [ditTable(dit)] : []),
    ...(wan.length > 0 ? [wanTable(wan, fullSteps)] : []),
    ...(links.length > 0 ? [linksTable(links)] : []),
    ...failures.map(({ piece, reason }) => `Failed: ${piece}: ${reason}`),
    `${seconds.toFixed(0)} s in all`,
  ].join("\n");
}

function ditTable(dit: readonly DitResult[]): string {
  const head = ["DiT", "", "ms", "speed-up", "comm. ms", "ring wait ms", "mean abs", "rel L2", "to beat / wanted"];
  const rows = dit.map((row) => [
    ...[row.plan, row.precision, row.latencyMs ? number(row.latencyMs.median) : "failed", number(row.speedup)],
    ...[number(row.communicationMs), number(row.ringWaitMs), small(row.meanAbs), small(row.relL2), row.target],
  ]);
  return table(head, rows);
}

function wanTable(wan: readonly WanResult[], fullSteps: number): string {
  const computed = `${fullSteps} steps s, computed`;
  const head = [
    "Wan",
    "size",
    "",
    "",
    "steps",
    "s/step",
    "decode s",
    "total s",
    computed,
    "file s",
    "GiB",
    "to beat / wanted",
  ];
  const rows = wan.map((row) => [
    ...[row.model, row.size, row.plan, row.precision, String(row.steps)],
    row.secondsPerStep === null ? "failed" : number(row.secondsPerStep),
    ...[number(row.decodeSeconds), number(row.totalSeconds), number(row.computedTotalSeconds), number(row.fileSeconds)],
    ...[row.peakMemoryBytes === null ? "" : (row.peakMemoryBytes / 2 ** 30).toFixed(1), row.target],
  ]);
  return table(head, rows);
}

/** A sum over peer memory is compared with NCCL's own, not with the one that ditrun makes over NCCL. */
function yardstick(transport: string | undefined, pattern: string): string {
  return transport === "nccl" && pattern === "all-reduce" ? "NCCL all-reduce" : pattern;
}

function linksTable(links: readonly LinkResult[]): string {
  const head = ["links", "KiB", "peer µs", "GB/s each way", "NCCL µs", "GB/s each way", "peer / NCCL", "to beat"];
  const rows = links
    .filter(({ transport }) => transport === links[0]?.transport)
    .map(({ pattern, bytes }) => {
      const [peer, nccl] = ["peer", "nccl"].map((name) =>
        links.find(
          (each) => each.transport === name && each.pattern === yardstick(name, pattern) && each.bytes === bytes,
        ),
      );
      const cells = [peer, nccl].flatMap((each) => [number(each?.microseconds), number(each?.gigabytesPerSecond)]);
      const ratio = peer && nccl ? peer.gigabytesPerSecond / nccl.gigabytesPerSecond : null;
      return [pattern, String(bytes / 1024), ...cells, number(ratio), "NCCL's"];
    });
  return table(head, rows);
}

function number(value: number | null | undefined): string {
  return value === null || value === undefined ? "" : value.toPrecision(Math.abs(value) >= 1000 ? 5 : 4);
}

function small(value: number | null): string {
  return value === null ? "" : value.toExponential(2);
}

function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const drawn = new Table({
    head: [...head],
    style: { head: [], border: [] },
    chars: { mid: "", "left-mid": "", "mid-mid": "", "right-mid": "" },
  });
  drawn.push(...rows.map((row) => [...row]));
  return drawn.toString();
}
