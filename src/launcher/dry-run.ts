import Table from "cli-table3";
import type { DitModel } from "../protocol/model.js";
import { meshSize, type Plan } from "../protocol/plan.js";
import { parameterCount, tokenCount } from "./model.js";
import { planPrecision } from "./plan.js";
import type { Session } from "./session.js";

/** What would run, for --dry-run: shown as a table and as JSON. */
export async function describeRuns(session: Session, model: DitModel, plans: readonly Plan[]): Promise<void> {
  const { device, kernels } = session.device;
  const tokens = tokenCount(model);
  const parameters = parameterCount(model);
  const runs = plans.map((plan) => ({
    plan,
    workers: meshSize(plan.mesh),
    precision: planPrecision(plan),
    tokensPerRank: [Math.floor(tokens / plan.mesh.cp), Math.ceil(tokens / plan.mesh.cp)],
    headsPerRank: model.heads / plan.mesh.tp,
  }));
  const table = new Table({
    head: ["plan", "workers", "cfg", "cp", "tp", "precision", "tokens per rank", "heads per rank"],
    style: { head: [], border: [] },
  });
  for (const { plan, workers, precision, tokensPerRank, headsPerRank } of runs) {
    const { cfg, cp, tp } = plan.mesh;
    const share = [...new Set(tokensPerRank)].join(" to ");
    table.push([plan.name ?? "", workers, cfg, cp, tp, precision, share, headsPerRank]);
  }
  session.print(
    [
      `Dry run: ${model.name} (${tokens} tokens, ${(parameters / 1e6).toFixed(1)} million parameters) on ${device} with ${kernels}`,
      table.toString(),
    ].join("\n"),
  );
  await session.emit({ dryRun: true, model, tokens, parameters, device, kernels, runs });
}
