import { execa } from "execa";
import { expect, test } from "vitest";
import { commandOf, curlOf, quoted } from "../../../src/serve/page/command.js";
import { draftOf, emptyDraft, fitted, requestOf } from "../../../src/serve/page/draft.js";
import { eventOf } from "../../../src/serve/page/event-stream.js";
import { duration, estimate, leftWords, stageWords, stateWords } from "../../../src/serve/page/words.js";
import { createSchema, type ServedModel, type Video } from "../../../src/serve/schemas.js";

const model: ServedModel = {
  ...{ id: "tiny", object: "model", created: 1, owned_by: "ditrun", sizes: ["96x96", "128x64"], loras: ["ink"] },
  ...{ num_frames: 17, max_num_frames: 33, fps: 16, num_inference_steps: 10, guidance_scale: 4, flow_shift: 3 },
};

const video: Video = {
  ...{
    id: "video_1",
    object: "video",
    model: "tiny",
    status: "completed",
    progress: 100,
    prompt: "It\u2019s Bob's $HOME",
  },
  ...{ created_at: 1, completed_at: 2, expires_at: 3, size: "128x64", seconds: "1.063", quality: "standard" },
  ...{ remixed_from_video_id: null, error: null, negative_prompt: null, num_frames: 17, fps: 16 },
  ...{ num_inference_steps: 10, guidance_scale: 4.5, flow_shift: 3, lora: [{ name: "ink", scale: 0.5 }] },
  ...{ guidance_scale_2: null, lora_2: null },
  ...{ seed: "18446744073709551615", queue_position: null, url: "/v1/videos/video_1/content" },
  ...{ inference_time_s: 12, peak_memory_mb: 1, stage_durations: { sample: 10, decode: 1 } },
};

test("a request leaves to the server what is left empty, and asks for the same video again as it was", () => {
  const empty = emptyDraft(model);
  expect(requestOf({ ...empty, prompt: " A cat " })).toEqual({ prompt: "A cat", size: "96x96", num_frames: 17 });
  const again = requestOf(draftOf(video));
  expect(again).toEqual({
    ...{ prompt: video.prompt, size: "128x64", num_frames: 17, num_inference_steps: 10, guidance_scale: 4.5 },
    ...{ flow_shift: 3, seed: "18446744073709551615", lora: [{ name: "ink", scale: 0.5 }] },
  });
  expect(createSchema.parse(again)).toEqual(again);
});

test("a form that was kept is fitted to what the server makes now", () => {
  const kept = { ...emptyDraft(model), size: "1x1", frames: 81, loras: { ink: 1, gone: 1 }, prompt: "a" };
  expect(fitted(kept, model)).toEqual({ ...emptyDraft(model), loras: { ink: 1 }, prompt: "a" });
});

test("the command and the call have the video's settings, quoted, and never the key", () => {
  expect(quoted("it's")).toBe("'it'\\''s'");
  expect(commandOf(video)).toBe(
    "ditrun wan generate --model tiny --prompt 'It\u2019s Bob'\\''s $HOME' --size '128*64' --frames 17 --steps 10 --shift 3 " +
      "--guide-scale 4.5 --fps 16 --seed 18446744073709551615 --lora ink.safetensors:0.5 --out video.mp4",
  );
  const call = curlOf(video, "http://127.0.0.1:8000", true);
  expect(call).toContain('-H "authorization: Bearer $DITRUN_API_KEY"');
  const [, body = ""] = / -d '(.*)'$/.exec(call) ?? [];
  expect(JSON.parse(body.replaceAll("'\\''", "'"))).toEqual({ ...requestOf(draftOf(video)), fps: 16 });
});

test.each(["it's", "a\u001b[201~; rm", "one\ntwo\\n", "$HOME `x`", "\u007f\u0085'"])(
  "a shell reads %j as it was",
  async (word) => {
    expect(quoted(word)).not.toMatch(/\p{Cc}/u);
    const { stdout } = await execa("bash", ["-c", `printf %s ${quoted(word)}`], { env: { LC_ALL: "C.UTF-8" } });
    expect(stdout).toBe(word);
    const call = curlOf({ ...video, prompt: word }, "http://127.0.0.1:8000", false);
    expect(call).not.toMatch(/\p{Cc}/u);
  },
);

test.each([
  [5.0625, "5.1 s"],
  [34.4, "34 s"],
  [110, "2 min"],
  [3600, "1 h"],
  [4300, "1 h 12 min"],
])("%f seconds are %s", (seconds, words) => {
  expect(duration(seconds)).toBe(words);
});

test("a video's state is told in words", () => {
  const at = { stage: "sample", step: 3, steps: 10, progress: 30, eta_s: 12.2 } as const;
  expect([stageWords(at), leftWords(at)]).toEqual(["Step 4 of 10", "12 s left"]);
  expect(stageWords({ ...at, step: 10 })).toBe("Step 10 of 10");
  expect(leftWords({ ...at, eta_s: null })).toBe("");
  expect(stateWords({ ...video, status: "queued", queue_position: 3 })).toBe("Place 3 in the queue");
  expect(stateWords({ ...video, status: "failed", error: { code: "cancelled", message: "" } })).toBe("Cancelled");
});

test("how long a video takes is told from one alike, by its steps", () => {
  expect(estimate([video], "128x64", 17, 20)).toBe(22);
  expect(estimate([video], "128x64", 17, 10)).toBe(12);
  expect(estimate([video], "96x96", 17, 10)).toBeUndefined();
});

test("an event is read from its lines, a comment is none", () => {
  expect(eventOf('event: status\ndata: {"a": "b: c"}')).toEqual({ name: "status", data: '{"a": "b: c"}' });
  expect(eventOf(": still here")).toBeUndefined();
});
