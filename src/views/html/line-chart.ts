import { html, type Markup } from "./markup.js";

export interface LineChart {
  readonly name: string;
  readonly unit: string;
  /** A line each; null and, on a logarithmic scale, 0 have no point. */
  readonly series: readonly { readonly name: string; readonly values: readonly (number | null)[] }[];
  /** What the values are of, by their place. */
  readonly labels: readonly string[];
  readonly logarithmic?: boolean;
  /** A level that values should stay below. */
  readonly limit?: number;
}

const [WIDTH, HEIGHT] = [1000, 260];
const frame = { left: 70, right: 985, top: 14, bottom: 216 };
/** Lines differ in their dashes, as well as in their marks. */
const dashes = ["", "7 4", "2 3", "9 3 2 3", "1 5"];

/** Values by their place, as lines. Undefined where there is no value at all. */
export function lineChart({ name, unit, series, labels, logarithmic = false, limit }: LineChart): Markup | undefined {
  const known = (value: number | null): value is number => value !== null && (!logarithmic || value > 0);
  const all = series.flatMap(({ values }) => values.filter(known));
  if (all.length === 0) return undefined;
  const scaled = (value: number) => (logarithmic ? Math.log10(value) : value);
  const ends = [...all, ...(limit === undefined ? [] : [limit])].map(scaled);
  const [low, high] = logarithmic
    ? [Math.floor(Math.min(...ends)), Math.max(Math.ceil(Math.max(...ends)), Math.floor(Math.min(...ends)) + 1)]
    : [Math.min(...ends), Math.max(...ends) === Math.min(...ends) ? Math.min(...ends) + 1 : Math.max(...ends)];
  const round = (value: number) => Math.round(value * 10) / 10;
  const x = (place: number) => round(frame.left + ((place + 0.5) / labels.length) * (frame.right - frame.left));
  const y = (value: number) =>
    round(frame.bottom - ((scaled(value) - low) / (high - low)) * (frame.bottom - frame.top));
  const marks = logarithmic
    ? Array.from({ length: high - low + 1 }, (_, index) => ({ at: 10 ** (low + index), text: `1e${low + index}` }))
    : [low, (low + high) / 2, high].map((at) => ({ at, text: at.toPrecision(3) }));
  const every = Math.max(1, Math.ceil(labels.length / 8));
  const lines = series.map(({ name: label, values }, index) => {
    const points = values.flatMap((value, place) => (known(value) ? [{ x: x(place), y: y(value), value, place }] : []));
    const path = points.map((point, place) => `${place === 0 ? "M" : "L"}${point.x} ${point.y}`).join("");
    return html`<path class="curve" d="${path}" stroke-dasharray="${dashes[index % dashes.length]}"/>
${points.map((point) => html`<circle cx="${point.x}" cy="${point.y}" r="3" fill="var(--accent)"><title>${label}, ${labels[point.place]}: ${point.value.toPrecision(3)} ${unit}</title></circle>`)}`;
  });
  const legend =
    series.length < 2
      ? undefined
      : html`<ul class="legend">${series.map(({ name: label }, index) => html`<li><svg viewBox="0 0 34 8" style="display:inline-block;min-width:34px;width:34px;margin-right:7px" aria-hidden="true"><path class="curve" d="M0 4H34" stroke-dasharray="${dashes[index % dashes.length]}"/></svg>${label}</li>`)}</ul>`;
  return html`<div class="wide" tabindex="0"><svg viewBox="0 0 ${WIDTH} ${HEIGHT}" role="img" aria-label="${name}">
${marks.map(({ at, text }) => html`<line class="axis" x1="${frame.left}" x2="${frame.right}" y1="${y(at)}" y2="${y(at)}"/><text x="${frame.left - 8}" y="${y(at) + 4}" text-anchor="end">${text}</text>`)}
${labels.map((label, place) => (place % every === 0 ? html`<text x="${x(place)}" y="${frame.bottom + 20}" text-anchor="middle">${label}</text>` : undefined))}
${limit === undefined ? undefined : html`<line class="bad" x1="${frame.left}" x2="${frame.right}" y1="${y(limit)}" y2="${y(limit)}" stroke-dasharray="6 4"/><text class="bad" x="${frame.right}" y="${y(limit) - 6}" text-anchor="end">limit</text>`}
${lines}
</svg></div>${legend}`;
}
