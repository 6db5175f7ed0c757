import type { Check, Finding } from "./check.js";
import type { Host } from "./host.js";
import type { CheckName, Section } from "./names.js";

/** What came of a check. */
export interface Checked extends Finding {
  readonly check: CheckName;
  readonly section: Section;
  readonly what: string;
  readonly facts: object | null;
}

/**
 * The checks that are to run: all but those that measure, or with `only` those of the sections and names in it.
 * One that measures runs with `bench`, or by its own name.
 */
export function chosenChecks(checks: readonly Check[], only: readonly string[], bench: boolean): Check[] {
  return checks.filter(({ name, section, bench: measures }) => {
    if (only.includes(name)) return true;
    return (only.length === 0 || only.includes(section)) && (bench || measures !== true);
  });
}

/**
 * Runs checks all at once.
 * @param onWait is told the section that is waited for. @param onSection is given each once all of its checks are done, in order.
 */
export async function runChecks(
  checks: readonly Check[],
  host: Host,
  onWait: (section: Section) => void,
  onSection: (section: Section, checked: readonly Checked[]) => void,
): Promise<Checked[]> {
  const running = checks.map(async (check): Promise<Checked> => {
    const { name, section, what } = check;
    return { check: name, section, what, ...(await check.run(host)) };
  });
  const all: Checked[] = [];
  for (const section of new Set(checks.map((check) => check.section))) {
    onWait(section);
    const done = await Promise.all(running.filter((_, index) => checks[index]?.section === section));
    onSection(section, done);
    all.push(...done);
  }
  return all;
}
