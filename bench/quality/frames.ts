import type { Engine, VideoRequest } from "../../src/index.js";
import type { Frame } from "./measure.js";

/** The video of a request, frame by frame. @throws DitrunError as Engine.run. */
export async function framesOf(engine: Engine, request: VideoRequest): Promise<Frame[]> {
  const frames: Frame[] = [];
  await engine.run(request, {
    onEvent: (event) => {
      if (event.kind !== "frame") return;
      const { index, width, height, pixels } = event;
      frames[index] = { width, height, pixels: pixels.slice() };
    },
  });
  return frames;
}
