import { checks } from "../../doctor/checks/index.js";
import { thisHost } from "../../doctor/host.js";
import { type Section, sections } from "../../doctor/names.js";
import { doctorVerdict, sectionText, verdictText } from "../../doctor/page.js";
import { chosenChecks, runChecks } from "../../doctor/run-checks.js";
import { exitCodes } from "../../failure.js";
import { pageOf } from "../../views/page.js";
import type { Body, Context } from "../command.js";
import type { DoctorOptions } from "../options/doctor.js";
import { environmentAllocation } from "../own-allocation.js";
import { terminal } from "../terminal.js";

/** `ditrun doctor`: tries what ditrun needs of this host, and says what to do about what it lacks. */
export const doctor: Body<DoctorOptions> = { run };

async function run({ only, bench, json }: DoctorOptions, { document, command }: Context): Promise<number> {
  const stream = json === undefined ? process.stdout : process.stderr;
  const page = pageOf(stream, process.env);
  const chosen = chosenChecks(checks, only, bench);
  // Naming a check that measures is enough to measure.
  const measures = chosen.some((check) => check.bench === true);
  const host = thisHost({ environment: process.env, allocation: environmentAllocation, bench: measures });
  const wait = (section: Section | undefined) =>
    terminal.status(section === undefined ? undefined : `${sections[section]} …`);
  const checked = await runChecks(chosen, host, wait, (section, each) => {
    wait(undefined);
    stream.write(`${sectionText(page, section, each)}\n\n`);
  });
  const verdict = doctorVerdict(checked);
  stream.write(`${verdictText(page, verdict)}\n`);
  const told = checked.map(({ check, section, state, value, wayOut = null, facts }) => ({
    ...{ check, section, state, value, wayOut, facts },
  }));
  await document.write({ command, ...verdict, checks: told });
  return verdict.state === "problem" ? exitCodes.mismatch : exitCodes.ok;
}
