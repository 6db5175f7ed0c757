import { describe, expect, test } from "vitest";
import { firstAfter, rowsOf } from "../../../src/views/html/browser/rows.js";
import { quoted } from "../../../src/views/html/facts.js";
import { findingsOf } from "../../../src/views/html/findings.js";
import { data, html, script } from "../../../src/views/html/markup.js";
import { rooflineChart } from "../../../src/views/html/roofline.js";
import { shownRanks, timelineData } from "../../../src/views/html/timeline-data.js";
import { profiledRank, tracedPage } from "./traced-job.js";
import { gemm, read, send, tracedRank } from "./traced-rank.js";

describe("markup", () => {
  test("what is put in shows as text, in elements and in quotes", () => {
    const hostile = `<script>alert("x")</script> & 'y'`;
    const shown = "&lt;script&gt;alert(&quot;x&quot;)&lt;/script&gt; &amp; &#39;y&#39;";
    expect(html`<p title="${hostile}">${hostile}${html`<b>${1}</b>`}${[hostile, undefined]}</p>`.text).toBe(
      `<p title="${shown}">${shown}<b>1</b>${shown}</p>`,
    );
  });

  test("data cannot end its element, and a script that would is refused", () => {
    expect(data("d", { text: "</script><script>" }).text).toBe(
      `<script type="application/json" id="d">{"text":"\\u003c/script>\\u003cscript>"}</script>`,
    );
    expect(() => script("'</SCRIPT>'")).toThrow("end of a script");
  });

  test("words of a command line are quoted as a shell needs them", () => {
    expect(["a-b=c/d.e", "a b", "it's", "$x"].map(quoted)).toEqual(["a-b=c/d.e", "'a b'", `'it'\\''s'`, "'$x'"]);
  });
});

describe("findings", () => {
  const plan = { graph: true, mesh: { cfg: 1, cp: 2, tp: 1 } } as const;
  const ranks = [profiledRank(0), profiledRank(1)];
  const facts = { ranks, plan, workers: 2, processors: 8, otherMesh: () => "tp2" };

  test("the most to gain stands first, in milliseconds of a forward", () => {
    const found = findingsOf({ ...facts, latencyMs: { median: 24, p90: 30 } });
    expect(found.map(({ what, gainMs }) => [what, gainMs])).toEqual([
      // One in ten takes 30 ms, the median 24.
      ["Forwards differ in time", 6],
      ["gemm 2×3×4 bf16", 4],
      ["Attention waits for the ring's blocks", 3],
      // 5 of communication, 3 of them waits.
      ["Sums and gathers between workers", 2],
      // 25 recorded, of which 22 and 23 are work: as one graph, only what is timed beyond the work.
      ["Nothing runs between kernels", 1.5],
      ["Rank 1 computes the longest", 0.5],
    ]);
    expect(found[2]?.why).toContain("Try tp2.");
    expect(found[3]?.why).toContain("peerSum 8×8, 2.00 ms on rank 0");
  });

  test("without a graph all gaps count; workers that share processors are told so first", () => {
    const found = findingsOf({ ...facts, plan: { ...plan, graph: false }, processors: 1 });
    expect(found[0]).toMatchObject({ what: "2 workers share 1 processor", gainMs: null });
    expect(found.find(({ what }) => what.startsWith("Nothing runs"))?.gainMs).toBe(2.5);
  });
});

describe("a timeline", () => {
  test("comes out of the page as it went in, on one clock", () => {
    const ranks = [tracedRank(0, [send(1), gemm, read(1)]), tracedRank(1, [gemm, send(0), read(0)])];
    const { rows, lines } = rowsOf(JSON.parse(JSON.stringify(timelineData(ranks))));
    expect(rows.map(({ rank, name }) => `${rank} ${name}`)).toEqual(
      [0, 1].flatMap((rank) => [`${rank} block`, `${rank} compute`, `${rank} copy`]),
    );
    // The earliest thing is rank 0's block at 4 µs; rank 1 began 100 µs later.
    expect(rows[0]?.items).toEqual([{ start: 0, end: 90, name: "blocks.0" }]);
    expect(rows[4]?.items[0]).toEqual({
      ...{ start: 1010, end: 1080, name: "gemm", phase: "gemm" },
      ...{ layer: "blocks.0.mlp.0", shape: "2×3×4 bf16" },
    });
    expect(lines.map(({ from, to }) => [from.row.rank, from.item.start, to.row.rank, to.item.start])).toEqual([
      [0, 20, 1, 1090],
      [1, 1020, 0, 90],
    ]);
    const items = rows[1]?.items ?? [];
    expect([0, 79, 80, 289, 290].map((time) => firstAfter(items, time))).toEqual([0, 0, 1, 1, 2]);
  });

  test("shows the ranks that fit, and at least one", () => {
    const many = Array.from({ length: 64 }, () => ({ trace: Array.from({ length: 1000 }, () => gemm) }));
    expect([shownRanks(many), shownRanks(many.slice(0, 8))]).toEqual([16, 8]);
    expect(shownRanks([{ trace: Array.from({ length: 20_000 }, () => gemm) }])).toBe(1);
  });
});

test("a roofline has its ridge where the peaks meet, and no roof where they are not known", () => {
  const kernels = profiledRank(0).kernels.map((kernel) => ({ ...kernel, bytes: kernel.flops / 100 || 1 }));
  const chart = rooflineChart(kernels, { tflops: 1000, gigabytesPerSecond: 10_000 })?.text ?? "";
  const [, point = ""] = /<rect x="([\d.]+)"[^>]*fill="var\(--gemm\)"/.exec(chart) ?? [];
  const [, ridge = ""] = /class="roof" d="M[^L]*L([\d.]+) /.exec(chart) ?? [];
  // 1000 TFLOP/s over 10 TB/s: 100 operations for each byte, which the kernel has too; its square is 22 wide.
  expect(Number(point) + 11).toBeCloseTo(Number(ridge), 0);
  expect(chart.match(/<title>/g)).toHaveLength(1);
  expect(rooflineChart(kernels, { tflops: null, gigabytesPerSecond: 1 })?.text).not.toContain('class="roof"');
  expect(rooflineChart([], { tflops: 1, gigabytesPerSecond: 1 })).toBeUndefined();
});

describe("the page of a profile", () => {
  test("asks for nothing, holds all sections, and shows what it is given as text", async () => {
    const page = await tracedPage(2, 2);
    expect(page).not.toMatch(/\b(?:src|href)=|url\(|@import|https?:|<link/);
    expect(page).toContain("default-src &#39;none&#39;");
    expect(page).toContain("Compute-bound: &lt;b&gt;gemm&lt;/b&gt;.");
    expect(page).toContain(`ditrun profile --model &#39;&lt;script&gt;alert(`);
    expect(page).not.toContain("<script>alert");
    const ids = [...page.matchAll(/<section id="([^"]+)"/g)].map(([, id]) => id);
    expect(ids).toEqual([
      ...["time", "findings", "timeline-section", "roofline", "memory", "predicted", "environment"],
    ]);
    expect(page).toContain(
      "The forward takes 10.0 % more than was predicted; its memory is 3.00 GiB, predicted 1.00 GiB.",
    );
    expect(page).toContain("580.95");
  });

  test("of eight ranks of a large model stays under a megabyte", async () => {
    // Forty blocks of 25 launches.
    const page = await tracedPage(8, 333);
    expect(Buffer.byteLength(page)).toBeLessThan(1e6);
  });
});
