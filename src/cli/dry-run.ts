import { parameterCount, tokenCount } from "../models/cost.js";
import type { Model } from "../models/schema.js";
import { describeDtypes, planPrecision } from "../plan/names.js";
import { weightBytes } from "../plan/resolve.js";
import { meshSize, type Plan } from "../plan/schema.js";
import type { MemoryNeed } from "../protocol/results.js";
import { counted } from "../text.js";
import { prose } from "../views/page.js";
import { type Column, formatTable } from "../views/table.js";
import { memorySentence } from "./rehearsal.js";
import type { Session } from "./session.js";

/** What is known of runs besides their plans. */
interface Known {
  /** Of one forward, where they depend on more than the model. */
  readonly tokens?: number;
  /** To be made, where it is about videos. */
  readonly videos?: number;
  /** Of the first run. */
  readonly memory?: MemoryNeed | undefined;
}

/** What would run, for --dry-run: shown as a table and as JSON. */
export async function describeRuns(
  session: Session,
  model: Model,
  plans: readonly Plan[],
  { tokens = tokenCount(model), videos, memory }: Known = {},
): Promise<void> {
  const { device, kernels } = session.device;
  const parameters = parameterCount(model);
  const runs = plans.map((plan) => ({
    plan,
    workers: meshSize(plan.mesh),
    precision: planPrecision(plan),
    tokensPerRank: [Math.floor(tokens / plan.mesh.cp), Math.ceil(tokens / plan.mesh.cp)] as const,
    headsPerRank: model.heads / plan.mesh.tp,
    weightBytesPerRank: weightBytes(model, plan),
  }));
  const { page } = session;
  const columns: Column<(typeof runs)[number]>[] = [
    { head: "plan", align: "left", cell: ({ plan }) => plan.name ?? "" },
    { head: "workers", cell: ({ workers }) => String(workers) },
    { head: "cfg", drop: 1, cell: ({ plan }) => String(plan.mesh.cfg) },
    { head: "cp", drop: 1, cell: ({ plan }) => String(plan.mesh.cp) },
    { head: "tp", drop: 1, cell: ({ plan }) => String(plan.mesh.tp) },
    { head: "dtypes", align: "left", cell: ({ plan }) => describeDtypes(plan) },
    {
      head: "tokens a rank",
      short: "tokens",
      cell: ({ tokensPerRank: [least, most] }) => (least === most ? String(least) : `${least} to ${most}`),
    },
    { head: "heads a rank", short: "heads", cell: ({ headsPerRank }) => String(headsPerRank) },
    {
      head: "weights a rank",
      short: "weights",
      cell: ({ weightBytesPerRank }) => `${(weightBytesPerRank / 2 ** 20).toFixed(1)} MiB`,
    },
  ];
  const made = videos === undefined ? "" : `: ${counted(videos, "video")}`;
  const what = `${model.name} (${tokens} tokens, ${(parameters / 1e6).toFixed(1)} million parameters)`;
  session.print(
    [
      prose(page, `Dry run: ${what} on ${device} with ${kernels}${made}`),
      formatTable(page, columns, runs),
      ...(memory === undefined ? [] : [prose(page, memorySentence(memory))]),
    ].join("\n"),
  );
  const figures = { tokens, parameters, device, kernels, runs, videoCount: videos, memory };
  await session.emit({ dryRun: true, model, plans, ...figures });
}
