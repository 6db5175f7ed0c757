import { html, type Markup } from "./markup.js";
import { section, table } from "./page.js";

/** By what, where and when a report was made, as the JSON document has it. */
export interface Made {
  readonly ditrun: { readonly version: string; readonly commit: string | null };
  readonly commandLine: readonly string[];
  readonly startedAt: string;
  readonly host: string;
  readonly environment: {
    readonly node: string;
    readonly kernels: string;
    readonly kernelsHash: string | null;
    readonly driver: string | null;
  };
}

const version = ({ ditrun: { version, commit } }: Made) =>
  `${version}${commit === null ? "" : ` (${commit.slice(0, 9)})`}`;

/** A word of a command line as a shell would need it. */
export const quoted = (word: string) => (/^[\w@%+=:,./*-]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`);

/** A sentence for the foot of a page. */
export const madeBy = (made: Made) =>
  `Made by ditrun ${version(made)} on ${made.host}, ${made.startedAt}. This page holds all that it shows: nothing is fetched.`;

/** What ran, and how to run it again. @param more rows of a name and what it is. */
export function environmentSection(made: Made, more: readonly (readonly [string, string])[]): Markup {
  const { startedAt, host, environment, commandLine } = made;
  const rows: (readonly [string, string])[] = [
    ...more,
    ["ditrun", version(made)],
    [
      "kernel module",
      `${environment.kernels}${environment.kernelsHash === null ? "" : `, ${environment.kernelsHash}`}`,
    ],
    ["driver", environment.driver ?? "none of a GPU"],
    ["Node.js", environment.node],
    ["host", host],
    ["started", startedAt],
  ];
  return section(
    "environment",
    "Environment and command",
    undefined,
    table(["what", "value"], rows, [1]),
    html`<pre>${commandLine.map(quoted).join(" ")}</pre>`,
  );
}
