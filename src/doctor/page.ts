import { counted } from "../text.js";
import { type Page, type Paint, paint, prose, textWidth } from "../views/page.js";
import type { State } from "./check.js";
import { type Section, sections } from "./names.js";
import type { Checked } from "./run-checks.js";

const signs: Readonly<Record<State, { readonly sign: string; readonly colour: Paint }>> = {
  ok: { sign: "✓", colour: "green" },
  warning: { sign: "!", colour: "yellow" },
  problem: { sign: "✗", colour: "red" },
};
/** Columns before a value: two spaces, the sign, a space, the name, two spaces. */
const NAME_COLUMNS = 13;
const INDENT = 2 + 2 + NAME_COLUMNS + 2;
/** In front of what to do. */
const ARROW = "→ ";

/** A section: its title, and a line for each check, with the way out below it. */
export function sectionText(page: Page, section: Section, checked: readonly Checked[]): string {
  return [paint(page, "bold", sections[section]), ...checked.flatMap((each) => linesOf(page, each))].join("\n");
}

function linesOf(page: Page, { what, state, value, wayOut, more = [] }: Checked): string[] {
  const { sign, colour } = signs[state];
  const [first = "", ...others] = wrapped(page, value);
  const ways =
    wayOut === undefined
      ? []
      : wrapped(page, wayOut, ARROW.length).map((line, index) => (index === 0 ? ARROW : "  ") + line);
  const gap = " ".repeat(Math.max(0, NAME_COLUMNS - textWidth(what)) + 2);
  const indent = " ".repeat(INDENT);
  return [
    `  ${paint(page, colour, sign)} ${what}${gap}${first}`,
    ...[...others, ...ways, ...more].map((line) => `${indent}${line}`),
  ];
}

function wrapped(page: Page, text: string, more = 0): string[] {
  return prose({ ...page, columns: page.columns - INDENT - more }, text).split("\n");
}

/** What all of it comes to. */
export function doctorVerdict(checked: readonly Checked[]): { readonly state: State; readonly verdict: string } {
  const named = (state: State) => checked.filter((each) => each.state === state).map(({ check }) => check);
  const [problems, warnings] = [named("problem"), named("warning")];
  const words = [
    ...(problems.length > 0 ? [`${counted(problems.length, "problem")} (${problems.join(", ")})`] : []),
    ...(warnings.length > 0 ? [`${counted(warnings.length, "warning")} (${warnings.join(", ")})`] : []),
  ];
  if (words.length > 0)
    return { state: problems.length > 0 ? "problem" : "warning", verdict: `${words.join(" and ")}.` };
  return { state: "ok", verdict: `nothing is missing: ${counted(checked.length, "check")} passed.` };
}

export function verdictText(page: Page, { state, verdict }: ReturnType<typeof doctorVerdict>): string {
  return prose(page, `${paint(page, ["bold", signs[state].colour], "Verdict:")} ${verdict}`);
}
