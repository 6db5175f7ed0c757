import { expect, test } from "vitest";
import { GRACE_MILLISECONDS, SETTLE_MILLISECONDS } from "../../../src/launcher/ending.js";
import { NEWS_MILLISECONDS, TELLING_MILLISECONDS } from "../../../src/launcher/supervisor.js";
import { pulseMilliseconds, silenceMilliseconds } from "../../../src/protocol/node-messages.js";

// Tests of jobs see that each of these waits ends when it should; on a busy machine they cannot tell how long all took.
test("a crash ends all ranks within 5 s, though they ignore SIGTERM and output of another is late", () => {
  const waits = [SETTLE_MILLISECONDS, NEWS_MILLISECONDS, TELLING_MILLISECONDS, GRACE_MILLISECONDS];
  expect(waits.reduce((sum, each) => sum + each)).toBeLessThan(5000);
});

test("a host that is lost ends all ranks within 10 s, though they ignore SIGTERM and output of another is late", () => {
  // Its last sign of life may be as old as a pulse when the link is cut; another passes until somebody looks.
  const noticed = silenceMilliseconds + pulseMilliseconds;
  const waits = [NEWS_MILLISECONDS, TELLING_MILLISECONDS, GRACE_MILLISECONDS];
  expect(waits.reduce((sum, each) => sum + each, noticed)).toBeLessThan(10_000);
});
