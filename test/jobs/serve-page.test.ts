import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { execa } from "execa";
import type { Browser, BrowserContextOptions, Page } from "playwright-core";
import { afterAll, afterEach, beforeAll, describe, expect } from "vitest";
import { packageRoot } from "../../src/paths.js";
import { openBrowser, testInBrowser } from "./browser.js";

const folder = mkdtempSync(join(tmpdir(), "ditrun-page-"));
const endings: (() => Promise<unknown>)[] = [];
const key = "a-key-of-this-test";
let address = "";
let browser: Browser | undefined;
/** What pages have asked for, and what went wrong in them. */
const asked: string[] = [];
const faults: string[] = [];

/** Starts a server of the small model. @returns where it listens. */
async function serve(): Promise<string> {
  const words = ["serve", "--model", "tiny", "--device", "cpu", "--port", "0", "--data-dir", join(folder, "data")];
  const size = ["--size", "64*64", "--frames", "5", "--max-frames", "9", "--queue", "1"];
  const process = execa("node", [join(packageRoot, "bin/ditrun.js"), ...words, ...size], {
    ...{ reject: false, stdin: "ignore" },
    env: { DITRUN_KERNELS: "", MASTER_PORT: "", DITRUN_API_KEY: key },
  });
  endings.push(async () => {
    process.kill("SIGKILL");
    await process;
  });
  let said = "";
  return new Promise<string>((resolve, reject) => {
    process.stderr.on("data", (chunk: Buffer) => {
      said += chunk.toString();
      const [, at] = /Ready: (\S+)\/v1\/videos/.exec(said) ?? [];
      if (at !== undefined) resolve(at);
    });
    void process.then(() => reject(new Error(said)));
  });
}

beforeAll(async () => {
  // Where there is no browser all tests are skipped.
  browser = await openBrowser().catch(() => undefined);
  if (!browser) return;
  address = await serve();
});
afterEach(() => {
  asked.length = 0;
  faults.length = 0;
});
afterAll(async () => {
  await browser?.close();
  for (const end of endings) await end();
  rmSync(folder, { recursive: true });
});

/** Opens the page, and gives it the key. */
async function open(options: BrowserContextOptions = {}): Promise<Page> {
  if (!browser) throw new Error("There is no browser.");
  const page = await browser.newPage({ viewport: { width: 1280, height: 900 }, ...options });
  page.setDefaultTimeout(20_000);
  page.on("request", (request) => asked.push(request.url()));
  page.on("pageerror", ({ message }) => faults.push(message));
  page.on("console", (message) => {
    // What a server refuses is told as an error, too.
    if (message.type() === "error" && !/status of (?:401|429)/.test(message.text())) faults.push(message.text());
  });
  await page.goto(address);
  await page.getByLabel("Key").fill(key);
  await page.getByRole("button", { name: "Open" }).click();
  return page;
}

async function ask(page: Page, prompt: string, steps: number): Promise<void> {
  await page.getByRole("textbox", { name: "Prompt" }).fill(prompt);
  if ((await page.locator("details[open]").count()) === 0) await page.getByText("More settings").click();
  await page.getByLabel("Steps", { exact: true }).fill(`${steps}`);
  await page.getByRole("button", { name: "Generate" }).click();
}

/** What an expression makes of the first element of this kind. */
const inPage = (page: Page, selector: string, expression: string) =>
  page.evaluate(`(() => { const found = document.querySelector("${selector}"); return ${expression}; })()`);

/** Until an expression is true. Playwright's own waiting evaluates text in the page, which its policy forbids. */
async function until(page: Page, expression: string): Promise<void> {
  while ((await page.evaluate(expression)) !== true) await page.waitForTimeout(50);
}

const scrolls = (page: Page) => page.evaluate("document.documentElement.scrollWidth > innerWidth");

describe("the page of a server", { timeout: 60_000 }, () => {
  testInBrowser("a video is asked for, seen as it is made, plays, and its settings come back", async () => {
    const page = await open();
    await ask(page, "A red circle moves right on blue", 30);
    await page.getByRole("progressbar").waitFor();
    await page.getByRole("img", { name: "Preview of the video" }).waitFor();
    // The preview is a picture, not one colour.
    await until(
      page,
      `(() => {
      const canvas = document.querySelector("canvas");
      const { data } = canvas?.getContext("2d").getImageData(0, 0, canvas.width, canvas.height) ?? { data: [] };
      return new Set(data.filter((_, at) => at % 4 === 0)).size > 8;
    })()`,
    );
    const video = page.locator("video");
    await video.waitFor({ timeout: 40_000 });
    await until(page, `document.querySelector("video").readyState >= 3`);
    await until(page, `document.querySelector("video").currentTime > 0`);
    expect(await inPage(page, "video", "[found.videoWidth, found.videoHeight, found.src.slice(0, 5)]")).toEqual([
      64,
      64,
      "blob:",
    ]);
    expect(await inPage(page, ".card img", "found.decode().then(() => found.naturalWidth)")).toBe(64);
    expect(await page.getByText(/^seed \d+/).count()).toBe(1);
    const download = page.waitForEvent("download");
    await page.getByRole("link", { name: "Download" }).click();
    expect((await download).suggestedFilename()).toMatch(/^video_[0-9a-f]+\.mp4$/);

    await page.getByRole("textbox", { name: "Prompt" }).fill("Another");
    await page.getByRole("button", { name: "Use these settings" }).click();
    expect(await page.getByRole("textbox", { name: "Prompt" }).inputValue()).toBe("A red circle moves right on blue");
    expect(await page.getByLabel("Steps", { exact: true }).inputValue()).toBe("30");
    expect(await page.getByLabel("Seed").inputValue()).toMatch(/^\d+$/);

    // Every control has a name, and nothing was asked of anybody else, nor with the key in an address.
    const nameless =
      await page.evaluate(`[...document.querySelectorAll("button, input, select, textarea, a, video")].filter(
      (each) => !(each.labels?.length || each.ariaLabel || each.textContent.trim())).length`);
    expect(nameless).toBe(0);
    expect(asked.filter((url) => !url.startsWith(address) && !/^(?:blob|data):/.test(url))).toEqual([]);
    expect(asked.filter((url) => url.includes(key))).toEqual([]);
    expect(faults).toEqual([]);

    await page.getByRole("button", { name: "Delete" }).click();
    await page.getByRole("button", { name: "Delete for good?" }).click();
    await page.getByText("What should it show?").waitFor();
    await page.close();
  });

  testInBrowser("a reload in the middle loses nothing; a full queue says so; cancel ends it", async () => {
    const page = await open({ viewport: { width: 375, height: 800 }, colorScheme: "dark" });
    const colour = await page.evaluate("getComputedStyle(document.body).backgroundColor");
    expect(colour).toBe("rgb(19, 18, 17)");
    await ask(page, "A long one", 200);
    await page.getByRole("progressbar").waitFor();
    await page.reload();
    await page.getByRole("heading", { name: "A long one" }).waitFor();
    await page.getByText(/^Step \d+ of 200$/).waitFor();
    expect(await page.getByRole("textbox", { name: "Prompt" }).inputValue()).toBe("A long one");
    expect(await scrolls(page)).toBe(false);

    await ask(page, "One that waits", 2);
    await page.getByText("Next in the queue").first().waitFor();
    await ask(page, "One too many", 2);
    const alert = page.getByRole("alert");
    expect(await alert.textContent()).toContain("The queue is full");
    await page.getByRole("button", { name: "Cancel A long one" }).click();
    await page.locator(".card", { hasText: "A long one" }).getByText("Cancelled").waitFor();
    expect(await scrolls(page)).toBe(false);
    await page.locator("video").waitFor();
    await page.close();
    expect(faults).toEqual([]);
  });

  testInBrowser("a wrong key is refused, and forgotten with the tab", async () => {
    if (!browser) throw new Error("There is no browser.");
    const page = await browser.newPage();
    await page.goto(address);
    await page.getByLabel("Key").fill("another-key-of-this");
    await page.keyboard.press("Enter");
    expect(await page.getByRole("alert").textContent()).toContain("does not take this key");
    expect(await page.getByRole("textbox", { name: "Prompt" }).count()).toBe(0);
    await page.close();
  });
});
