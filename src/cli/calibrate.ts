import { mkdir } from "node:fs/promises";
import { dirname } from "node:path";
import { z } from "zod";
import { calibrationFile } from "../engine/machine.js";
import { DitrunError } from "../failure.js";
import { checkDocument } from "../files/documents.js";
import { fileFailure } from "../files/file-failure.js";
import { writeOutput } from "../files/output-file.js";
import { calibrationOf, type LinkTime } from "../plan/planner/calibration.js";
import { usualRates } from "../plan/planner/machine.js";
import { planSchema } from "../plan/schema.js";
import { calibrateRankSchema, linksRankSchema } from "../protocol/results.js";
import { counted } from "../text.js";
import { summarizeLinks } from "../views/links-report.js";
import type { Context } from "./command.js";
import { readOptions } from "./option.js";
import { hostsOptions } from "./options/hosts.js";
import { workerOptions } from "./options/launch.js";
import type { PlanOptions } from "./options/plan.js";
import { Session } from "./session.js";
import { showProgress } from "./show-progress.js";

/** Messages that tell latency from bandwidth. */
const linkBytes = { cuda: [65_536, 2 ** 26], cpu: [1024, 2 ** 20] };

/** Measures this machine's devices and the links between them, and keeps it in the user's cache. @throws DitrunError as Session.run. */
export async function calibrate(chosen: PlanOptions, context: Context): Promise<void> {
  const nothing = new Map<string, readonly string[]>();
  const session = await Session.open(
    {
      ...readOptions({ ...workerOptions, ...hostsOptions }, nothing),
      ...{ device: chosen.device, timeout: chosen.timeout, json: chosen.json, quiet: chosen.quiet },
      ...{ logLevel: chosen.logLevel, logDir: chosen.logDir, events: undefined, dryRun: false },
    },
    context,
  );
  const { device } = session;
  const file = calibrationFile(device, process.env);
  const alone = planSchema.parse({ name: "one device" });
  const run = (task: Parameters<Session["run"]>[0]) => showProgress(session, {}, (onEmit) => session.run(task, onEmit));
  const [measured] = checkDocument(
    "The worker's result",
    await run({ kind: "calibrate", plan: alone }),
    z.array(calibrateRankSchema),
    "ERR_INTERNAL",
  );
  if (!measured) throw new Error("One worker has one result.");
  const ranks = device.device === "cuda" ? Math.min(device.count, 8) : 2;
  const times: LinkTime[] = [];
  // Between CPU workers NCCL is TCP, which no plan on one host takes.
  const transports = device.device === "cuda" ? (["peer", "nccl"] as const) : (["peer"] as const);
  for (const transport of ranks > 1 ? transports : []) {
    const plan = planSchema.parse({ name: `${ranks} over ${transport}`, mesh: { cp: ranks }, ring: { transport } });
    const task = { kind: "links", plan, sizes: linkBytes[device.device], repetitions: 5 } as const;
    const found = checkDocument(
      "The workers' results",
      await run({ ...task, sizes: [...task.sizes] }),
      z.array(linksRankSchema),
      "ERR_INTERNAL",
    );
    times.push(...summarizeLinks(transport, found));
  }
  const base = usualRates({ kind: device.device, name: device.name });
  const when = new Date().toISOString().slice(0, 10);
  const calibration = calibrationOf(measured, { times, ranks }, base, when);
  await mkdir(dirname(file), { recursive: true }).catch((error: unknown) => {
    throw new DitrunError("ERR_FOLDER", `${dirname(file)} could not be made: ${fileFailure(error)}.`, { cause: error });
  });
  await writeOutput(file, `${JSON.stringify(calibration, null, 2)}\n`);
  const what = ranks > 1 ? ` and the links between ${counted(ranks, "worker")}` : "";
  session.log.logger.info(`Measured ${measured.device}${what}: ${file} is used from now on.`);
}
