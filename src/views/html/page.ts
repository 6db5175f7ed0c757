import { html, Markup } from "./markup.js";
import { style } from "./style.js";

/** A number that stands at the top of a report. */
export interface Headline {
  readonly name: string;
  readonly value: string;
  /** Beside it, smaller. */
  readonly note?: string;
}

export interface Report {
  /** `profile`, `wan generate`, `compare`, … */
  readonly command: string;
  /** What it is of. */
  readonly title: string;
  readonly verdict: string;
  readonly headlines: readonly Headline[];
  /** Those that are undefined have nothing to say. */
  readonly sections: readonly (Markup | undefined)[];
  /** Data and scripts, at the end. */
  readonly scripts?: readonly Markup[];
  /** By what and when it was made. */
  readonly made: string;
}

/** Nothing of a report comes from elsewhere, and a browser is told to let nothing. */
const policy =
  "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'";

/** A report as one HTML document, which needs no other file and no network. */
export function reportPage({ command, title, verdict, headlines, sections, scripts = [], made }: Report): string {
  return html`<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="${policy}">
<title>${command}: ${title}</title>
<style>${new Markup(style)}</style>
</head>
<body>
<main>
<header>
<p class="over">ditrun ${command}</p>
<h1>${title}</h1>
<p class="verdict">${sentence(verdict)}</p>
<dl class="numbers">${headlines.map(
    ({ name, value, note }) => html`<div><dt>${name}</dt><dd>${value} <small>${note}</small></dd></div>`,
  )}</dl>
</header>
${sections.flatMap((section) => section ?? [])}
<footer>${made}</footer>
</main>
${scripts}
</body>
</html>
`.text;
}

/** A verdict as a sentence of its own, where no word stands before it. */
const sentence = (text: string) => {
  const said = text.replace(/^none,/, "no verdict,");
  return `${said.slice(0, 1).toUpperCase()}${said.slice(1)}`;
};

/** A part of a report with a heading; the note says what is to be seen. */
export function section(id: string, heading: string, note: string | undefined, ...body: readonly Markup[]): Markup {
  return html`<section id="${id}" aria-labelledby="${id}-heading">
<h2 id="${id}-heading">${heading}</h2>
${note === undefined ? undefined : html`<p>${note}</p>`}
${body}
</section>`;
}

/** A table; cells of columns named in `words` may break. */
export function table(
  heads: readonly string[],
  rows: readonly (readonly (string | Markup)[])[],
  words: readonly number[] = [],
): Markup {
  const kind = (index: number) => (words.includes(index) ? "words" : "");
  return html`<div class="wide" tabindex="0"><table>
<thead><tr>${heads.map((head, index) => html`<th scope="col" class="${kind(index)}">${head}</th>`)}</tr></thead>
<tbody>${rows.map((row) => html`<tr>${row.map((cell, index) => html`<td class="${kind(index)}">${cell}</td>`)}</tr>\n`)}</tbody>
</table></div>`;
}

/** What is there for those who want all of it. */
export function folded(summary: string, ...body: readonly Markup[]): Markup {
  return html`<details><summary>${summary}</summary>${body}</details>`;
}
