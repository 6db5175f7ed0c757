import type { Metrics } from "./metrics.js";
import { openApi } from "./openapi.js";
import type { Page } from "./page-file.js";
import { type Route, send, sendJson } from "./router.js";
import type { Runner } from "./runner.js";
import type { ServedModel } from "./schemas.js";
import type { Offer } from "./settings.js";

interface Parts {
  readonly videos: readonly Route[];
  readonly metrics: Metrics;
  readonly offer: Offer;
  readonly page: Page;
  readonly runners: readonly Runner[];
  /** Milliseconds since 1970. */
  readonly startedAt: number;
  draining(): boolean;
}

/** The model as clients see it. */
function modelObject(
  { model, sizes, frames, mostFrames, fps, loras }: Offer,
  sampling: Runner["sampling"],
  at: number,
): ServedModel {
  return {
    ...{ id: model, object: "model", created: Math.floor(at / 1000), owned_by: "ditrun" },
    sizes: sizes.map(({ width, height }) => `${width}x${height}`),
    ...{ num_frames: frames, max_num_frames: mostFrames, fps },
    num_inference_steps: sampling?.steps ?? null,
    guidance_scale: sampling?.guideScale ?? null,
    flow_shift: sampling?.shift ?? null,
    loras: [...loras.keys()],
  };
}

/**
 * All that the server answers to. The page, and whether the server lives and is ready, are for everybody; the rest needs the key, where
 * there is one.
 */
export function allRoutes({ videos, metrics, offer, page, runners, startedAt, draining }: Parts): Route[] {
  const routes: Route[] = [
    ...videos,
    {
      method: "GET",
      path: "/v1/models",
      handle: ({ response }) => {
        const sampling = runners.map((runner) => runner.sampling).find((each) => each !== undefined);
        sendJson(response, { object: "list", data: [modelObject(offer, sampling, startedAt)] });
      },
    },
    {
      method: "GET",
      path: "/metrics",
      handle: async ({ response }) => {
        const text = await metrics.registry.metrics();
        send(response, 200, metrics.registry.contentType, text);
      },
    },
    {
      method: "GET",
      path: "/openapi.json",
      handle: ({ response }) => sendJson(response, document),
    },
    {
      method: "GET",
      path: "/",
      // It asks for the key itself.
      open: true,
      handle: ({ response }) => send(response, 200, "text/html; charset=utf-8", page.html, page.headers),
    },
    {
      method: "GET",
      path: "/healthz",
      open: true,
      handle: async ({ response }) => {
        const replicas = await Promise.all(
          runners.map(async (runner) => {
            const silent = await runner.silentRanks();
            const { ready, healthy, restarts } = runner;
            return { ready, healthy: healthy && silent.length === 0, restarts, silent_ranks: silent };
          }),
        );
        const healthy = replicas.every((replica) => replica.healthy);
        send(response, healthy ? 200 : 503, "application/json", JSON.stringify({ healthy, replicas }));
      },
    },
    {
      method: "GET",
      path: "/readyz",
      open: true,
      handle: ({ response }) => {
        const ready = !draining() && runners.some((runner) => runner.ready);
        send(response, ready ? 200 : 503, "application/json", JSON.stringify({ ready }));
      },
    },
  ];
  const document = openApi(routes);
  return routes;
}
