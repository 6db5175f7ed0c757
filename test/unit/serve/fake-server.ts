import { type ServeOptions, VideoServer } from "../../../src/serve/server.js";
import { FakeEngine } from "./fake-engine.js";

/** A server without workers, that has started. @param folder holds its data. */
export async function startFakeServer(folder: string, more: Partial<ServeOptions> = {}): Promise<VideoServer> {
  const say = () => undefined;
  const server = await VideoServer.listen({
    ...{ host: "127.0.0.1", port: 0, key: undefined, folder, capacity: 9, keepMs: 3_600_000, replicas: 1 },
    offer: {
      ...{ model: "tiny", sizes: [{ width: 16, height: 16 }], frames: 1, mostFrames: 9, fps: 16, loras: new Map() },
      ...{ steps: 2, guideScale: 5, shift: 5 },
    },
    openEngine: async () => new FakeEngine(),
    logger: { debug: say, info: say, warn: say, error: say },
    ...more,
  });
  await server.start();
  return server;
}
