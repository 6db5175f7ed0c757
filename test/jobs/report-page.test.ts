import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Browser } from "playwright-core";
import { afterAll, describe, expect } from "vitest";
import { tracedPage } from "../unit/views/traced-job.js";
import { openBrowser, testInBrowser } from "./browser.js";

let browser: Promise<Browser> | undefined;
afterAll(async () => (await browser)?.close());
const folder = mkdtempSync(join(tmpdir(), "ditrun-report-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** A report in a browser, and what went wrong in it: errors, and requests for anything but the page. */
async function opened(width: number, colorScheme: "light" | "dark") {
  const file = join(folder, `${width}.html`);
  writeFileSync(file, await tracedPage(4, 20));
  browser ??= openBrowser();
  const page = await (await browser).newPage({ viewport: { width, height: 900 }, colorScheme });
  const faults: string[] = [];
  page.on("pageerror", (error) => faults.push(String(error)));
  page.on("console", (message) => message.type() === "error" && faults.push(message.text()));
  page.on("request", (request) => request.url() !== `file://${file}` && faults.push(request.url()));
  page.on("dialog", (dialog) => faults.push(dialog.message()));
  await page.goto(`file://${file}`);
  return { page, faults };
}

describe("a report in a browser", () => {
  testInBrowser("is drawn without a fault or a request, and moves by keys", async () => {
    const { page, faults } = await opened(1440, "light");
    const timeline = page.locator("#timeline");
    /** What is drawn, as a whole. */
    const picture = () =>
      timeline.evaluate((canvas) => (canvas instanceof HTMLCanvasElement ? canvas.toDataURL() : ""));
    const settled = () =>
      page.evaluate(() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done))));
    await settled();
    const whole = await picture();
    await timeline.focus();
    const selected = page.locator("#selected");
    await page.keyboard.press("n");
    await expect
      .poll(() => selected.textContent())
      .toMatch(/^gemm 2×3×4 bf16.*7\.0 µs.*rank 0, compute · gemm · blocks\.0\.mlp/);
    await page.keyboard.press("n");
    expect(await selected.textContent()).toMatch(/^attention.*waits for rank 3/);
    await page.keyboard.press("ArrowDown");
    expect(await selected.textContent()).toMatch(/^copy.*rank 0, copy.*sent to rank 1/);
    await page.keyboard.press("Escape");
    await page.keyboard.press("+");
    await settled();
    expect(await picture()).not.toBe(whole);
    await page.keyboard.press("0");
    await settled();
    expect(await picture()).toBe(whole);
    const box = await timeline.boundingBox();
    await timeline.click({ position: { x: (box?.width ?? 0) - 3, y: 50 } });
    await page.getByRole("button", { name: "Zoom in" }).click();
    await settled();
    expect(await picture()).not.toBe(whole);
    expect(await page.getByRole("heading", { level: 2 }).allTextContents()).toContain("What there is to gain");
    expect(faults).toEqual([]);
    await page.close();
  });

  testInBrowser.each([
    ["a phone", 375, "dark"],
    ["a tablet", 768, "light"],
  ] as const)("fits %s, and its text can be read", async (_, width, scheme) => {
    const { page, faults } = await opened(width, scheme);
    expect(await page.evaluate(() => document.documentElement.scrollWidth)).toBe(width);
    // WCAG 2.2: relative luminance, and a contrast of at least 4.5 for text of this size.
    const contrasts = await page.evaluate(() => {
      const luminance = (colour: string) => {
        const [r = 0, g = 0, b = 0] = (colour.match(/[\d.]+/g) ?? []).map((each) => {
          const value = Number(each) / 255;
          return value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
        });
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
      };
      const ground = (element: Element | null): string => {
        if (!element) return "rgb(255, 255, 255)";
        const { backgroundColor } = getComputedStyle(element);
        return /, 0\)$|transparent/.test(backgroundColor) ? ground(element.parentElement) : backgroundColor;
      };
      const texts = document.querySelectorAll(
        "p, h1, h2, h3, dt, dd, td, th, button, summary, .bar i, .name, footer, pre",
      );
      return [...texts]
        .filter((element) => element.textContent?.trim())
        .map((element) => {
          const [a, b] = [luminance(getComputedStyle(element).color), luminance(ground(element))];
          return { text: element.textContent?.slice(0, 30), ratio: (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05) };
        });
    });
    expect(contrasts.length).toBeGreaterThan(40);
    expect(contrasts.filter(({ ratio }) => ratio < 4.5)).toEqual([]);
    expect(faults).toEqual([]);
    await page.close();
  });
});
