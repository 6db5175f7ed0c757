import { accessSync, constants } from "node:fs";
import { type Browser, chromium } from "playwright-core";
import { test } from "vitest";

/** Debian's chromium, and where other systems have it or its sibling. */
const places = ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"];

const found = places.find((path) => {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
});

if (found === undefined)
  console.warn(`Tests in a browser are skipped: there is no ${places[0]}. apt-get install chromium`);

/** A test that needs a browser: skipped, with a word, where there is none. */
export const testInBrowser = test.skipIf(found === undefined);

/** A browser without a window. Whoever opens it closes it. */
export async function openBrowser(): Promise<Browser> {
  // Its sandbox wants a user who is not root, as few containers have one; it sees no page but those of the test.
  return chromium.launch({ executablePath: found ?? "", args: ["--no-sandbox"] });
}
