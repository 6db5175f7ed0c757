import { expect, test } from "vitest";
import { bytesOfPixels } from "../../../../src/worker/models/wan/vae/pixels.js";
import { FrameSender } from "../../../../src/worker/tasks/frame-sender.js";

test("no more than 256 MiB of frames wait for the launcher; then decoding waits too", async () => {
  const answers: (() => void)[] = [];
  const emit = () => new Promise<void>((resolve) => answers.push(resolve));
  const sender = new FrameSender({ emit });
  // 64 frames of 8 MiB, all of the same memory: 256 MiB are 32 of them.
  const chunk = { pixels: new Uint8Array(2 ** 23), frames: 1, firstFrame: 0, height: 1, width: 1 };
  let sent = 0;
  const sending = (async () => {
    for (; sent < 64; sent++) await sender.send(chunk);
    await sender.flush();
    return "flushed";
  })();
  const settle = () => new Promise((resolve) => setImmediate(resolve));
  await settle();
  expect([answers.length, sent]).toEqual([33, 32]);
  answers[0]?.();
  await settle();
  expect(answers.length).toBe(34);
  for (let i = 1; i < 64; i++) {
    answers[i]?.();
    await settle();
  }
  expect(await sending).toBe("flushed");
});

test("flushing waits for the last frame's answer", async () => {
  let answer = () => {};
  const emit = () => new Promise<void>((resolve) => (answer = resolve));
  const sender = new FrameSender({ emit });
  await sender.send({ pixels: new Uint8Array(12), frames: 1, firstFrame: 0, height: 1, width: 1 });
  let flushed = false;
  const flushing = sender.flush().then(() => (flushed = true));
  await new Promise((resolve) => setImmediate(resolve));
  expect(flushed).toBe(false);
  answer();
  await flushing;
});

test("pixels become 8 bits by rounding, and stay within them", () => {
  expect([...bytesOfPixels(Float32Array.of(-1, 1, 0.003, -0.9961, 1.2, -3))]).toEqual([0, 255, 128, 0, 255, 0]);
});
