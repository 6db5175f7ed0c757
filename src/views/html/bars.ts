import { figures } from "../figures.js";
import { html, type Markup } from "./markup.js";

/** A part of a bar. @property kind a class of the style, which gives colour and pattern. */
export interface BarPart {
  readonly kind: string;
  readonly name: string;
  readonly value: number;
}

export interface Bar {
  readonly name: string;
  readonly parts: readonly BarPart[];
}

/** A part this wide has room for its number. */
const ROOM = 0.07;

interface Scale {
  /** Stands behind numbers. */
  readonly unit: string;
  /** Writes a number. */
  readonly figuresOf?: (value: number) => string;
}

/** A bar for each row, all on one scale; each part has its number, and a name where one points at it. */
export function bars(rows: readonly Bar[], { unit, figuresOf = figures }: Scale): Markup {
  const shown = (value: number) => `${figuresOf(value)}${unit === "" ? "" : ` ${unit}`}`;
  const total = ({ parts }: Bar) => parts.reduce((sum, { value }) => sum + value, 0);
  const longest = Math.max(...rows.map(total), Number.MIN_VALUE);
  const part = ({ kind, name, value }: BarPart) => {
    const share = value / longest;
    return html`<i class="${kind}" style="width:${(100 * share).toFixed(3)}%" title="${name}: ${shown(value)}">${share > ROOM ? figuresOf(value) : ""}</i>`;
  };
  const said = (row: Bar) => row.parts.map(({ name, value }) => `${name} ${shown(value)}`).join(", ");
  return html`<div class="bars">${rows.map(
    (row) =>
      html`<div class="row"><span class="name">${row.name}</span><span class="bar" role="img" aria-label="${row.name}: ${said(row)}">${row.parts
        .filter(({ value }) => value > 0)
        .map(part)}</span><span class="total">${shown(total(row))}</span></div>`,
  )}</div>`;
}

/** What colours and patterns stand for. */
export function legend(kinds: readonly { readonly kind: string; readonly name: string }[]): Markup {
  return html`<ul class="legend">${kinds.map(({ kind, name }) => html`<li><b class="${kind}"></b>${name}</li>`)}</ul>`;
}
