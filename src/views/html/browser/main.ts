import type { TimelineData } from "../timeline-data.js";
import { draw, duration, MARGIN, type Window } from "./draw.js";
import { firstAfter, type Item, type Row, rowsOf } from "./rows.js";

// The timeline of a report. The page has its data, so nothing is fetched.

const canvas = document.querySelector<HTMLCanvasElement>("#timeline");
const source = document.querySelector("#timeline-data");
const output = document.querySelector<HTMLOutputElement>("#selected");
if (canvas && source && output) start(canvas, JSON.parse(source.textContent ?? ""), output);

function start(canvas: HTMLCanvasElement, timeline: TimelineData, output: HTMLOutputElement): void {
  const { rows, lines, height } = rowsOf(timeline);
  const whole: Window = timeline.views[0] ?? { from: 0, to: 1 };
  let shown: Window = whole;
  let chosen: { row: Row; index: number } | undefined;
  let frame = 0;

  const redraw = () => {
    cancelAnimationFrame(frame);
    frame = requestAnimationFrame(() => draw(canvas, rows, lines, shown, chosen?.row.items[chosen.index]));
  };
  const resize = () => {
    const { devicePixelRatio: ratio } = window;
    canvas.style.height = `${height}px`;
    canvas.width = Math.round(canvas.clientWidth * ratio);
    canvas.height = Math.round(height * ratio);
    redraw();
  };
  /** Never beyond the ends, and never closer than two microseconds. */
  const show = (from: number, to: number) => {
    const length = Math.min(Math.max(to - from, 20), whole.to - whole.from);
    const start = Math.min(Math.max(from, whole.from), whole.to - length);
    shown = { from: start, to: start + length };
    redraw();
  };
  const zoom = (times: number, at = (shown.from + shown.to) / 2) =>
    show(at - (at - shown.from) / times, at + (shown.to - at) / times);
  const pan = (share: number) => {
    const by = share * (shown.to - shown.from);
    show(shown.from + by, shown.to + by);
  };
  const timeAt = (x: number) => shown.from + ((x - MARGIN) / (canvas.clientWidth - MARGIN)) * (shown.to - shown.from);

  const choose = (row: Row | undefined, index: number, follow: boolean) => {
    const item = row?.items[index];
    if (!row || !item) return;
    chosen = { row, index };
    tell(row, item);
    const length = shown.to - shown.from;
    if (follow && (item.start < shown.from || item.end > shown.to)) {
      const middle = (item.start + item.end) / 2;
      show(middle - length / 2, middle + length / 2);
    } else redraw();
  };
  const tell = (row: Row, item: Item) => {
    const strong = document.createElement("strong");
    strong.textContent = `${item.name} ${item.shape ?? ""}`.trimEnd();
    const messages = lines.flatMap(({ from, to }) => [
      ...(from.item === item ? [`sent to rank ${to.row.rank}`] : []),
      ...(to.item === item ? [`waits for rank ${from.row.rank}`] : []),
    ]);
    const words = [
      `rank ${row.rank}, ${row.name}`,
      ...(item.phase ? [item.phase] : []),
      ...(item.layer ? [item.layer] : []),
      ...messages,
    ].join(" · ");
    const times = `${duration(item.end - item.start)}, from ${duration(item.start)} on`;
    output.replaceChildren(strong, document.createElement("br"), `${times} · ${words}`);
  };
  const step = (by: number) => {
    const kernels = rows.filter(({ kernels, items }) => kernels && items.length > 0);
    if (!chosen) choose(kernels[0], firstAfter(kernels[0]?.items ?? [], shown.from), true);
    else choose(chosen.row, chosen.index + by, true);
  };
  const changeRow = (by: number) => {
    const kernels = rows.filter(({ kernels, items }) => kernels && items.length > 0);
    if (!chosen) return step(0);
    const row = kernels[kernels.indexOf(chosen.row) + by];
    const time = chosen.row.items[chosen.index]?.start ?? shown.from;
    if (row) choose(row, Math.min(firstAfter(row.items, time), row.items.length - 1), true);
  };

  const keys: Readonly<Record<string, () => void>> = {
    ArrowLeft: () => pan(-0.2),
    ArrowRight: () => pan(0.2),
    ArrowUp: () => changeRow(-1),
    ArrowDown: () => changeRow(1),
    "+": () => zoom(1.5),
    "=": () => zoom(1.5),
    "-": () => zoom(1 / 1.5),
    "0": () => show(whole.from, whole.to),
    n: () => step(1),
    p: () => step(-1),
    Escape: () => {
      chosen = undefined;
      redraw();
    },
  };
  canvas.addEventListener("keydown", (event) => {
    const act = event.ctrlKey || event.metaKey || event.altKey ? undefined : keys[event.key];
    if (!act) return;
    event.preventDefault();
    act();
  });
  canvas.addEventListener(
    "wheel",
    (event) => {
      if (!event.ctrlKey && !event.metaKey && !event.shiftKey) return;
      event.preventDefault();
      if (event.shiftKey) pan((event.deltaY || event.deltaX) / canvas.clientWidth);
      else zoom(Math.exp(-event.deltaY / 300), timeAt(event.offsetX));
    },
    { passive: false },
  );

  /** Fingers and the mouse by their number: where each is, and where it went down. */
  const pointers = new Map<number, { x: number; down: number }>();
  canvas.addEventListener("pointerdown", (event) => {
    pointers.set(event.pointerId, { x: event.offsetX, down: event.offsetX });
    canvas.setPointerCapture(event.pointerId);
  });
  canvas.addEventListener("pointermove", (event) => {
    const pointer = pointers.get(event.pointerId);
    if (!pointer) return;
    const other = [...pointers].find(([id]) => id !== event.pointerId)?.[1];
    if (other) {
      const [before, now] = [Math.abs(pointer.x - other.x), Math.abs(event.offsetX - other.x)];
      if (before > 4 && now > 4) zoom(now / before, timeAt((event.offsetX + other.x) / 2));
    } else pan((pointer.x - event.offsetX) / (canvas.clientWidth - MARGIN));
    pointer.x = event.offsetX;
  });
  canvas.addEventListener("pointerup", (event) => {
    const pointer = pointers.get(event.pointerId);
    pointers.delete(event.pointerId);
    if (!pointer || Math.abs(pointer.down - event.offsetX) > 4) return;
    const row = rows.find(({ top, height: own }) => event.offsetY >= top && event.offsetY < top + own + 2);
    if (row) pick(row, event.offsetX);
  });
  canvas.addEventListener("pointercancel", (event) => pointers.delete(event.pointerId));
  /** The item under a point, or the nearest within a few pixels. */
  const pick = (row: Row, x: number) => {
    const [from, to] = [timeAt(x - 3), timeAt(x + 3)];
    const index = firstAfter(row.items, from);
    const item = row.items[index];
    if (item && item.start <= to) choose(row, index, false);
  };

  for (const button of document.querySelectorAll<HTMLButtonElement>("[data-zoom]")) {
    button.addEventListener("click", () => zoom(Number(button.dataset.zoom)));
  }
  for (const button of document.querySelectorAll<HTMLButtonElement>("[data-view]")) {
    const view = timeline.views[Number(button.dataset.view)];
    if (view) button.addEventListener("click", () => show(view.from, view.to));
  }
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  new ResizeObserver(resize).observe(canvas.parentElement ?? canvas);
  const last = timeline.views.at(-1);
  if (last) show(last.from, last.to);
  resize();
}
