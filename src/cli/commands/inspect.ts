import { DitrunError, exitCodes } from "../../failure.js";
import { type InspectedFile, inspectFile } from "../../models/wan/inspect.js";
import { describeDtypes } from "../../plan/names.js";
import { readPlan, weightBytes } from "../../plan/resolve.js";
import type { Plan } from "../../plan/schema.js";
import { inspectDocument, inspectPage } from "../../views/inspect-report.js";
import { pageOf } from "../../views/page.js";
import type { Body, Context } from "../command.js";
import { reads } from "../named-files.js";
import type { InspectOptions } from "../options/inspect.js";

/** `ditrun inspect FILE…`: what files are, from their headers. Its exit code is that of the first file that cannot be used. */
export const inspect: Body<InspectOptions> = {
  files: ({ plan }) => reads({ "--plan": plan }),
  run,
};

async function run({ plan: planName, json }: InspectOptions, { rest, document, command }: Context): Promise<number> {
  if (rest.length === 0)
    throw new DitrunError("ERR_COMMAND_LINE", "inspect needs a file: ditrun inspect FILE. See ditrun inspect --help.");
  const plan = planName === undefined ? undefined : await readPlan(planName);
  const files: InspectedFile[] = [];
  for (const file of rest) files.push(await inspectFile(file));
  const held = plan && heldUnder(plan);
  const stream = json === undefined ? process.stdout : process.stderr;
  stream.write(`${files.map((file) => inspectPage(pageOf(stream, process.env), file, held)).join("\n\n")}\n`);
  await document.write({ command, ...inspectDocument(files, plan, held) });
  return files.find(({ problem }) => problem)?.problem?.exitCode ?? exitCodes.ok;
}

/** What a worker holds of a transformer's weights, in bytes and in words. */
function heldUnder(plan: Plan) {
  return {
    words: `${plan.name ?? "the plan"}, ${describeDtypes(plan)}`,
    bytes: (part: InspectedFile["parts"][number]) => (part.model ? weightBytes(part.model, plan) : undefined),
  };
}
