import { setTimeout as sleep } from "node:timers/promises";
import type { Engine, RunRequestOptions, VideoResult } from "../../../src/engine/engine.js";
import type { VideoRequest } from "../../../src/engine/requests.js";
import { DitrunError } from "../../../src/failure.js";
import { planSchema } from "../../../src/plan/schema.js";

/** An engine without workers. The prompt says what becomes of a request: `crash`, `fail`, `slow`, or a video of black frames. */
export class FakeEngine implements Engine {
  readonly device = "cpu";
  readonly plan = planSchema.parse({ mesh: {} });
  readonly ended: Promise<DitrunError | undefined>;
  readonly prompts: string[] = [];
  #end: (failure: DitrunError | undefined) => void = () => {};

  constructor() {
    this.ended = new Promise((resolve) => {
      this.#end = resolve;
    });
  }

  /** As if a rank had been killed. */
  crash(): DitrunError {
    const failure = new DitrunError("ERR_RANK_SIGNAL", "Rank 1 was ended by SIGKILL.", { rank: 1, signal: "SIGKILL" });
    this.#end(failure);
    return failure;
  }

  samplingOf({ steps = 2, guideScale = 5, shift = 5 }: VideoRequest): ReturnType<Engine["samplingOf"]> {
    return { solver: "unipc", steps, guideScale: Number(guideScale), shift };
  }

  async run(request: VideoRequest, { signal, onEvent, wantsPreview }: RunRequestOptions = {}): Promise<VideoResult> {
    const { prompt, width = 16, height = 16, frames = 1, seed = 0 } = request;
    this.prompts.push(prompt);
    if (prompt.startsWith("crash")) throw this.crash();
    if (prompt === "fail") throw new DitrunError("ERR_NOT_FINITE", "Step 3 is not finite.");
    await onEvent?.({ kind: "step", done: 1, total: 2, millisecondsLeft: 5 });
    if (wantsPreview?.()) {
      const preview = { kind: "preview", step: 1, frames: 2, width: 3, height: 4 } as const;
      await onEvent?.({ ...preview, pixels: new Uint8Array(72).fill(200) });
    }
    if (prompt.startsWith("slow")) await sleep(60_000, undefined, { signal }).catch(() => signal?.throwIfAborted());
    const pixels = new Uint8Array(3 * width * height);
    if (prompt !== "-") {
      for (let index = 0; index < frames; index++) await onEvent?.({ kind: "frame", index, width, height, pixels });
    }
    return { frames, width, height, seed: BigInt(seed), ranks: [measured] };
  }

  /** As if these had been stopped. */
  silent: readonly number[] = [];

  async silentRanks(): Promise<readonly number[]> {
    return this.silent;
  }

  async close(): Promise<void> {
    this.#end(undefined);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}

const measured: VideoResult["ranks"][number] = {
  ...{ rank: 0, device: "none", stages: { prepareMs: 1, encodeMs: 2, sampleMs: 3, decodeMs: 4 } },
  ...{
    load: { milliseconds: 0, bytes: 0 },
    memory: { neededBytes: 0, availableBytes: 0, encoderFirst: false, hostBytes: 0 },
    stepsMs: [1, 1],
    switchMs: 0,
    forwardsMs: [1],
  },
  ...{ forwardsAtOnce: 1, forwardFlops: 1, heldMemoryBytes: 1, peakMemoryBytes: 5e6 },
};
