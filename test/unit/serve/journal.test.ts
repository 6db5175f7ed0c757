import {
  appendFileSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { open as openFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { z } from "zod";
import { Journal } from "../../../src/serve/journal.js";
import type { VideoRecord } from "../../../src/serve/records.js";
import { Store } from "../../../src/serve/store.js";

let folder = "";
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "ditrun-journal-"));
});
afterEach(() => rmSync(folder, { recursive: true }));

const schema = z.strictObject({ n: z.int() });
const open = () => Journal.open(join(folder, "j"), schema);
const text = () => readFileSync(join(folder, "j"), "utf8");

test("what was appended is there again, in its order, many at once too", async () => {
  const { journal, entries } = await open();
  expect(entries).toEqual([]);
  await journal.append({ n: 0 });
  await Promise.all([1, 2, 3, 4].map((n) => journal.append({ n })));
  expect(journal.lines).toBe(5);
  await journal.close();
  const again = await open();
  expect(again.entries.map(({ n }) => n)).toEqual([0, 1, 2, 3, 4]);
  await again.journal.close();
});

test.each([
  ["half a line", '{"n":2'],
  ["what the disk never got", "\0\0\0\0\n"],
])("%s at the end is dropped, and what follows begins a line of its own", async (_what, tail) => {
  const { journal } = await open();
  await journal.append({ n: 1 });
  await journal.close();
  appendFileSync(join(folder, "j"), tail);
  const again = await open();
  expect(again.entries).toEqual([{ n: 1 }]);
  await again.journal.append({ n: 3 });
  await again.journal.close();
  expect(text()).toBe('{"n":1}\n{"n":3}\n');
});

test("cut anywhere, the whole lines before remain", async () => {
  const lines = '{"n":1}\n{"n":22}\n';
  for (let length = 0; length <= lines.length; length++) {
    writeFileSync(join(folder, "j"), lines);
    truncateSync(join(folder, "j"), length);
    const { journal, entries } = await open();
    await journal.close();
    expect(entries).toEqual([{ n: 1 }, { n: 22 }].slice(0, length < 8 ? 0 : length < lines.length ? 1 : 2));
  }
});

test("a damaged line in the middle is told, and nothing is lost", async () => {
  writeFileSync(join(folder, "j"), '{"n":1}\n{"n":\n{"n":3}\n');
  await expect(open()).rejects.toMatchObject({ code: "ERR_JSON", message: expect.stringContaining("Line 2 of") });
  expect(text()).toBe('{"n":1}\n{"n":\n{"n":3}\n');
});

test.each([
  ["an entry of a newer version at its end", '{"n":1}\n{"n":2,"new":3}\n', "Line 2 of"],
  ["entries of something else", '{"m":1}\n{"m":2}\n', "Line 1 of"],
  ["text of something else", "Dear diary\nMonday\n", "is no journal of ditrun"],
])("a journal with %s is refused, and nothing is lost", async (_what, content, message) => {
  writeFileSync(join(folder, "j"), content);
  await expect(open()).rejects.toMatchObject({ code: "ERR_JSON", message: expect.stringContaining(message) });
  expect(text()).toBe(content);
});

test("what others keep in the folder of videos stays", async () => {
  const theirs = ["holiday.mp4", "holiday.thumbnail.jpg", "video_of_us.mp4", "notes"];
  mkdirSync(join(folder, "videos", "2019"), { recursive: true });
  for (const name of theirs) writeFileSync(join(folder, "videos", name), name);
  for (const name of ["video_00.mp4", "video_00.thumbnail.jpg", "video_00.mp4.0123-4-5-6.tmp"])
    writeFileSync(join(folder, "videos", name), "");
  const store = await Store.open(folder);
  await store.close();
  expect(readdirSync(join(folder, "videos")).sort()).toEqual(["2019", ...theirs].sort());
});

test("written anew it has what is asked for, and then what was appended after", async () => {
  const { journal } = await open();
  await journal.append({ n: 1 });
  await Promise.all([journal.append({ n: 2 }), journal.rewrite(() => [{ n: 9 }]), journal.append({ n: 3 })]);
  await journal.close();
  expect(text()).toBe('{"n":9}\n{"n":3}\n');
  expect(readdirSync(folder)).toEqual(["j"]);
});

test("an append that fails leaves nothing behind, and the next one works", async () => {
  const { journal } = await open();
  await journal.append({ n: 1 });
  const handle = await openFile(join(folder, "j"));
  const full = vi.spyOn(Object.getPrototypeOf(handle), "datasync").mockRejectedValueOnce(new Error("the disk is full"));
  await handle.close();
  await expect(journal.append({ n: 2 })).rejects.toMatchObject({ code: "ERR_FILE_WRITE" });
  await journal.append({ n: 3 });
  await journal.close();
  full.mockRestore();
  expect(text()).toBe('{"n":1}\n{"n":3}\n');
});

const record = (id: string, more: Partial<VideoRecord> = {}): VideoRecord => ({
  ...{ id, createdAt: 1000, status: "queued", attempts: 0, cancelled: false },
  settings: {
    ...{ prompt: "A red car", width: 96, height: 64, frames: 9, fps: 16, steps: 6, guideScale: 5, shift: 5, seed: "1" },
  },
  ...more,
});

test("records come back as they were last, and files that no completed video has are removed", async () => {
  const store = await Store.open(folder);
  const ids = [1, 2, 3, 4].map((now) => store.newId(now));
  const [queued = "", done = "", old = "", gone = ""] = ids;
  await Promise.all(ids.map((id) => store.add(record(id, { idempotency: { key: `key ${id}`, digest: "d" } }))));
  await store.change(done, (before) => ({ ...before, status: "completed", completedAt: 5000 }));
  await store.change(old, (before) => ({ ...before, status: "completed", completedAt: 2000 }));
  for (const id of ids) writeFileSync(store.fileOf(id), id);
  await store.remove(gone, "deleted", 6000);
  expect(await store.expire(6000, 4000)).toBe(1);
  await store.close();

  writeFileSync(store.fileOf("video_00"), "of nobody");
  const again = await Store.open(folder);
  expect(again.all().map(({ id, status }) => [id, status])).toEqual([
    [queued, "queued"],
    [done, "completed"],
  ]);
  expect(readdirSync(join(folder, "videos"))).toEqual([`${done}.mp4`]);
  expect([again.isExpired(old), again.isExpired(gone)]).toEqual([true, false]);
  expect(again.byKey(`key ${done}`)?.id).toBe(done);
  expect(again.byKey(`key ${old}`)).toBeUndefined();
  expect(again.newId(0) > old).toBe(true);
  // Written anew: one line of each record, and one of the id that has expired.
  expect(readFileSync(join(folder, "journal.jsonl"), "utf8").trim().split("\n")).toHaveLength(3);
  await again.close();
});

test("changes of one record follow each other, so that its last state is kept", async () => {
  const store = await Store.open(folder);
  const id = store.newId(1);
  await store.add(record(id));
  const finish = store.change(id, (before) => ({ ...before, status: "completed", completedAt: 2 }));
  const cancel = store.change(id, (before) =>
    before.status === "completed" ? undefined : { ...before, status: "failed" },
  );
  expect((await Promise.all([finish, cancel])).map((after) => after?.status)).toEqual(["completed", "completed"]);
  await store.close();
});

test("pages of the list go on where a video was deleted meanwhile", async () => {
  const store = await Store.open(folder);
  const ids = [1, 2, 3, 4, 5].map((now) => store.newId(now));
  for (const id of ids) await store.add(record(id));
  const page = (order: "asc" | "desc", after?: string) => {
    const { page, more } = store.list({ limit: 2, order, after });
    return { ids: page.map(({ id }) => ids.indexOf(id)), more };
  };
  expect(page("desc")).toEqual({ ids: [4, 3], more: true });
  await store.remove(ids[3] ?? "", "deleted", 9);
  expect(page("desc", ids[3])).toEqual({ ids: [2, 1], more: true });
  expect(page("desc", ids[1])).toEqual({ ids: [0], more: false });
  expect(page("asc", ids[0])).toEqual({ ids: [1, 2], more: true });
  await store.close();
});
