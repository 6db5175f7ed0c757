import { parameterCount, tokenCount } from "../models/cost.js";
import type { Model } from "../models/schema.js";
import { describeDtypes, planPrecision, weightBytes } from "../plan/resolve.js";
import { meshSize, type Plan } from "../plan/schema.js";
import { counted } from "../text.js";
import { formatTable } from "../views/table.js";
import type { Session } from "./session.js";

/** What would run, for --dry-run: shown as a table and as JSON. @param videos to be made, where it is about videos. */
export async function describeRuns(
  session: Session,
  model: Model,
  plans: readonly Plan[],
  tokens = tokenCount(model),
  videos?: number,
): Promise<void> {
  const { device, kernels } = session.device;
  const parameters = parameterCount(model);
  const runs = plans.map((plan) => ({
    plan,
    workers: meshSize(plan.mesh),
    precision: planPrecision(plan),
    tokensPerRank: [Math.floor(tokens / plan.mesh.cp), Math.ceil(tokens / plan.mesh.cp)],
    headsPerRank: model.heads / plan.mesh.tp,
    weightBytesPerRank: weightBytes(model, plan),
  }));
  const head = [
    "plan",
    "workers",
    "cfg",
    "cp",
    "tp",
    "dtypes",
    "tokens per rank",
    "heads per rank",
    "weights per rank",
  ];
  const rows = runs.map(({ plan, workers, tokensPerRank, headsPerRank, weightBytesPerRank }) => {
    const { cfg, cp, tp } = plan.mesh;
    const share = [...new Set(tokensPerRank)].join(" to ");
    const weights = `${(weightBytesPerRank / 2 ** 20).toFixed(1)} MiB`;
    return [plan.name ?? "", ...[workers, cfg, cp, tp, describeDtypes(plan), share, headsPerRank].map(String), weights];
  });
  session.print(
    [
      `Dry run: ${model.name} (${tokens} tokens, ${(parameters / 1e6).toFixed(1)} million parameters) on ${device} with ${kernels}${videos === undefined ? "" : `: ${counted(videos, "video")}`}`,
      formatTable(head, rows),
    ].join("\n"),
  );
  await session.emit({ dryRun: true, model, tokens, parameters, device, kernels, runs, videoCount: videos });
}
