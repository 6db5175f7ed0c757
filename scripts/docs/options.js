// Tables of docs/options.md: every option as the command line itself declares it.
import { foreignOptions } from "../../dist/cli/aliases.js";
import { commands } from "../../dist/cli/commands/index.js";
import { launchOptions } from "../../dist/cli/options/launch.js";
import { modelOptions } from "../../dist/cli/options/model.js";
import { outputOptions } from "../../dist/cli/options/output.js";
import { table } from "./table.js";

const code = (text) => `\`${text.replaceAll("|", "\\|")}\``;

function rowOf([name, { value, mayBeBare, choices, describe, usual }]) {
  const shown = choices === undefined ? value : value && "NAME";
  const typed = shown === undefined ? "" : mayBeBare ? ` [${shown}]` : ` ${shown}`;
  const values = choices === undefined ? "" : `; one of ${choices.map(code).join(", ")}`;
  return [code(`--${name}${typed}`), `${describe}${values}`.replaceAll("|", "\\|"), usual ?? ""];
}

const optionTable = (entries) => table(["Option", "What it does", "Default"], entries.map(rowOf));

const groups = { model: modelOptions, launch: launchOptions, output: outputOptions };
const shared = new Set(Object.values(groups).flatMap((group) => Object.values(group)));

/** A heading and a table for each command that has options of its own. */
function commandTables() {
  const parts = commands.flatMap(({ name, options }) => {
    const own = Object.entries(options).filter(([, option]) => !shared.has(option));
    return own.length === 0 ? [] : [`### ditrun ${name}`, optionTable(own)];
  });
  return parts.join("\n\n");
}

/** What an option of another program is here. */
function foreignRow([name, foreign]) {
  const typed = code(`--${name}`);
  if ("to" in foreign) return [typed, code(`--${foreign.to}`), ""];
  if ("side" in foreign) return [typed, code("--size"), "both together"];
  return [typed, "", foreign.sentence];
}

export const optionTables = {
  ...Object.fromEntries(
    Object.entries(groups).map(([name, group]) => [
      `options of all: ${name}`,
      () => optionTable(Object.entries(group)),
    ]),
  ),
  "options of each command": commandTables,
  "options of other programs": () =>
    table(["Typed", "Is read as", "Or is answered with"], Object.entries(foreignOptions).map(foreignRow)),
};
