import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { errorSchema } from "../../../src/serve/schemas.js";
import type { VideoServer } from "../../../src/serve/server.js";
import { startFakeServer } from "./fake-server.js";

let folder = "";
let server: VideoServer;
beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), "ditrun-hostile-"));
  server = await startFakeServer(folder);
});
afterAll(async () => {
  await server.drain(0, new AbortController().signal);
  rmSync(folder, { recursive: true });
});

async function post(body: string, type: string) {
  const response = await fetch(`${server.address}/v1/videos`, {
    ...{ method: "POST", body, headers: { "content-type": type } },
  });
  return { status: response.status, ...errorSchema.parse(await response.json()).error };
}

const part = (name: string, value: string, more = "") =>
  `--B\r\nContent-Disposition: form-data; name="${name}"${more}\r\n\r\n${value}\r\n`;
const form = (...parts: string[]) => post(`${parts.join("")}--B--\r\n`, "multipart/form-data; boundary=B");

test.each(["[[", "[", '[{"name":'])("a form whose lora is %s is refused, and the server goes on", async (lora) => {
  expect(await form(part("prompt", "x"), part("lora", lora))).toMatchObject({ status: 400, param: "lora" });
  expect((await fetch(`${server.address}/readyz`)).status).toBe(200);
});

test.each(["1e5", "hi", "1.5", "-1", "", "0x10"])("a seed of text %j is refused by its name", async (seed) => {
  const json = await post(JSON.stringify({ prompt: "x", seed }), "application/json");
  expect(json).toMatchObject({ status: 400, param: "seed" });
  expect(await form(part("prompt", "x"), part("seed", seed))).toMatchObject({ status: 400, param: "seed" });
});

test.each([
  ["no end", part("prompt", "x")],
  ["nothing", " "],
  ["a file that is cut off", '--B\r\nContent-Disposition: form-data; name="a"; filename="b"\r\n\r\nx\r\n'],
  ["zeros", "\0".repeat(1000)],
  ["a header that is cut off", "--B\r\nContent-Disp"],
  ["parts without names", "--B\r\n\r\nx\r\n--B--\r\n"],
  ["a header without end", `--B\r\nX: ${"y".repeat(500_000)}\r\n--B--\r\n`],
  [
    "a strange charset",
    '--B\r\nContent-Disposition: form-data; name="a"\r\nContent-Type: a; charset=b\r\n\r\né\r\n--B--\r\n',
  ],
])("a form with %s is refused", async (_what, body) => {
  expect((await post(body, "multipart/form-data; boundary=B")).status).toBe(400);
});

test("a form of thousands of parts is refused", async () => {
  const many = await form(...Array.from({ length: 5000 }, (_, index) => part(`a${index}`, "")));
  expect(many).toMatchObject({ status: 400, code: "invalid_form" });
  const files = await form(...Array.from({ length: 5000 }, () => part("a", "", '; filename="../b"')));
  expect(files).toMatchObject({ status: 400, param: "a" });
});
