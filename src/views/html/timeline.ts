import { readFileSync } from "node:fs";
import { reportScript } from "../../paths.js";
import type { TraceRank } from "../../protocol/results.js";
import { counted } from "../../text.js";
import { legend } from "./bars.js";
import { data, html, type Markup, script } from "./markup.js";
import { section } from "./page.js";
import { shownRanks, timelineData } from "./timeline-data.js";

/** What kinds of work are called. */
export const phaseKinds = [
  { kind: "attention", name: "attention" },
  { kind: "gemm", name: "products (gemm)" },
  { kind: "elementwise", name: "elementwise" },
  { kind: "communication", name: "communication that nothing hides" },
  { kind: "idle", name: "nothing runs" },
];

/** The timeline of all ranks, and what draws it. @param recorded as timelineData has it. */
export function timelineSection(
  ranks: readonly TraceRank[],
  recorded?: string,
): { section: Markup; scripts: Markup[] } {
  const shown = shownRanks(ranks);
  const all = timelineData(ranks, recorded);
  const note = `Each rank has a row for each stream, above it its blocks. On the compute row, communication is what nothing hides: the rank waits. Copies below it run meanwhile; arrows lead from a copy to the launch that waits for it.${
    shown < ranks.length
      ? ` Here are the first ${counted(shown, "rank")} of ${ranks.length}; a trace (--trace) has all.`
      : ""
  }`;
  const body = html`<div class="tools" role="toolbar" aria-label="Timeline">
${all.views.map(({ name }, index) => html`<button type="button" data-view="${index}">${name === "all" ? "Show all" : `Show ${name}`}</button>`)}
<button type="button" data-zoom="2" aria-label="Zoom in">+</button><button type="button" data-zoom="0.5" aria-label="Zoom out">−</button>
<span>Drag to move, pinch or <kbd>Ctrl</kbd> + wheel to zoom. Keys: <kbd>←</kbd> <kbd>→</kbd> move, <kbd>+</kbd> <kbd>−</kbd> zoom, <kbd>0</kbd> all, <kbd>n</kbd> <kbd>p</kbd> next and previous, <kbd>↑</kbd> <kbd>↓</kbd> row.</span>
</div>
<canvas id="timeline" tabindex="0" role="img" aria-label="Timeline of ${counted(shown, "rank")}; choose a kernel by n and p" aria-describedby="selected"></canvas>
<output id="selected" aria-live="polite">Choose a kernel to see what it is.</output>
<noscript><p>The timeline is drawn by a script; the tables have the same numbers.</p></noscript>
${legend(phaseKinds.slice(0, 4))}`;
  return {
    section: section("timeline-section", "Timeline", note, body),
    scripts: [data("timeline-data", all), script(readFileSync(reportScript, "utf8"))],
  };
}
