/** Of every report. Kinds of work differ in colour and in pattern; all text keeps a contrast of at least 4.5. */
export const style = `
:root { color-scheme: light dark;
  --page: #faf9f7; --card: #ffffff; --ink: #1c1f24; --soft: #5d636d; --line: #e4e1dc; --accent: #2f5f9e; --good: #1f7a4d; --bad: #b3293c;
  --attention: #39689f; --gemm: #2c7a6b; --elementwise: #8a6d1d; --communication: #b04a5a; --idle: #8d929b; --on: #ffffff; --hatch: rgb(255 255 255 / 0.38); }
@media (prefers-color-scheme: dark) { :root {
  --page: #14161a; --card: #1b1e23; --ink: #e8e6e2; --soft: #a3a8b1; --line: #2e3238; --accent: #8fb4e8; --good: #6fcf9d; --bad: #f08a98;
  --attention: #7fa9dc; --gemm: #6cc0ae; --elementwise: #d2b25c; --communication: #e58d9b; --idle: #767c86; --on: #14161a; --hatch: rgb(20 22 26 / 0.42); } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif; font-variant-numeric: tabular-nums; }
main { max-width: 1120px; margin: 0 auto; padding: 40px 24px 72px; }
header { margin-bottom: 28px; }
.over { margin: 0 0 6px; color: var(--soft); font-size: 14px; }
h1 { margin: 0; font-size: 17px; font-weight: 600; color: var(--soft); overflow-wrap: anywhere; }
.verdict { margin: 14px 0 0; font-size: clamp(21px, 3.1vw, 30px); line-height: 1.3; font-weight: 600; letter-spacing: -0.01em; max-width: 34em; text-wrap: pretty; }
.numbers { display: flex; flex-wrap: wrap; gap: 14px 40px; margin: 26px 0 0; padding: 0; }
.numbers div { min-width: 96px; }
.numbers dt { color: var(--soft); font-size: 13px; }
.numbers dd { margin: 0; font-size: 22px; font-weight: 600; }
.numbers small { font-size: 13px; font-weight: 400; color: var(--soft); }
section { background: var(--card); border: 1px solid var(--line); border-radius: 12px; padding: 22px 24px; margin: 18px 0; }
h2 { margin: 0 0 4px; font-size: 18px; }
section > p { margin: 0 0 14px; color: var(--soft); font-size: 14.5px; max-width: 70ch; }
table { border-collapse: collapse; width: 100%; font-size: 14px; }
th, td { padding: 6px 10px 6px 0; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap; }
th { color: var(--soft); font-weight: 500; }
th:first-child, td:first-child { text-align: left; }
td.words, th.words { text-align: left; white-space: normal; overflow-wrap: anywhere; }
.wide { overflow-x: auto; }
.bars { display: grid; grid-template-columns: max-content 1fr max-content; gap: 6px 12px; align-items: center; font-size: 14px; }
.bars + .wide, .wide + .wide { margin-top: 16px; }
.row { display: grid; grid-template-columns: subgrid; grid-column: 1 / -1; gap: inherit; align-items: center; }
.bars .total { color: var(--soft); text-align: right; }
.bar { display: flex; height: 26px; border-radius: 5px; overflow: hidden; background: transparent; }
.bar i { display: block; font-style: normal; font-size: 12px; line-height: 26px; padding-left: 7px; color: var(--on); overflow: hidden; white-space: nowrap; border-right: 1px solid var(--card); }
.attention { background: var(--attention); }
.gemm { background: repeating-linear-gradient(90deg, var(--hatch) 0 1px, transparent 1px 6px) var(--gemm); }
.elementwise { background: radial-gradient(circle at 2px 2px, var(--hatch) 1.1px, transparent 1.4px) 0 0 / 6px 6px var(--elementwise); }
.communication { background: repeating-linear-gradient(45deg, var(--hatch) 0 2px, transparent 2px 7px) var(--communication); }
.idle { background: transparent; box-shadow: inset 0 0 0 1px var(--idle); }
.bar i.idle { color: var(--soft); }
.bar i.plain { background: var(--accent); }
.bar i span { background: inherit; }
.legend { display: flex; flex-wrap: wrap; gap: 6px 20px; margin: 14px 0 0; padding: 0; list-style: none; font-size: 13.5px; color: var(--soft); }
.legend b { display: inline-block; width: 22px; height: 13px; margin-right: 7px; border-radius: 3px; vertical-align: -1px; }
.findings { list-style: none; margin: 10px 0 0; padding: 0; }
.findings li { display: grid; grid-template-columns: 108px 1fr; gap: 4px 18px; padding: 12px 0; border-top: 1px solid var(--line); }
.findings .gain { font-weight: 600; font-size: 17px; }
.findings .gain small { display: block; font-weight: 400; font-size: 12.5px; color: var(--soft); }
.findings h3 { margin: 0; font-size: 15.5px; font-weight: 600; }
.findings p { margin: 2px 0 0; font-size: 14.5px; color: var(--soft); max-width: 68ch; }
.tools { display: flex; flex-wrap: wrap; gap: 8px; align-items: center; margin: 0 0 10px; font-size: 13.5px; color: var(--soft); }
button { font: inherit; font-size: 13.5px; color: var(--ink); background: var(--page); border: 1px solid var(--line); border-radius: 7px; padding: 5px 12px; min-height: 32px; cursor: pointer; }
button:hover { border-color: var(--accent); }
:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }
canvas { display: block; width: 100%; border-radius: 6px; touch-action: pan-y; cursor: grab; }
#selected { display: block; min-height: 4.7em; margin-top: 10px; font-size: 14px; color: var(--soft); overflow-wrap: anywhere; }
#selected strong { color: var(--ink); }
kbd { font: 12px ui-monospace, monospace; border: 1px solid var(--line); border-radius: 4px; padding: 0 5px; background: var(--page); color: var(--ink); }
svg { display: block; min-width: 560px; width: 100%; height: auto; font: 12.5px system-ui, sans-serif; }
svg text { fill: var(--soft); }
svg .axis { stroke: var(--line); }
svg .roof { stroke: var(--ink); fill: none; stroke-width: 1.5; }
svg .curve { stroke: var(--accent); fill: none; stroke-width: 1.75; }
svg .area { fill: var(--accent); opacity: 0.14; }
svg .bad { stroke: var(--bad); fill: var(--bad); }
svg .name { fill: var(--ink); }
details { margin-top: 14px; font-size: 14.5px; }
summary { cursor: pointer; color: var(--accent); }
pre { margin: 8px 0 0; padding: 12px 14px; background: var(--page); border: 1px solid var(--line); border-radius: 8px; overflow-x: auto; font: 13px/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; white-space: pre-wrap; overflow-wrap: anywhere; }
.up { color: var(--bad); } .down { color: var(--good); }
footer { color: var(--soft); font-size: 13px; margin-top: 28px; }
@media (max-width: 640px) {
  main { padding: 24px 14px 48px; } section { padding: 18px 16px; border-radius: 10px; }
  .findings li { grid-template-columns: 1fr; } .findings .gain small { display: inline; margin-left: 6px; }
  .numbers { gap: 14px 26px; }
  .bars { grid-template-columns: 1fr max-content; } .row { row-gap: 2px; margin-bottom: 8px; } .row .bar { grid-column: 1 / -1; grid-row: 2; }
}
@media print { body { background: #fff; } section { break-inside: avoid; } .tools { display: none; } }
`;
