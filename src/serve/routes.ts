import type { Metrics } from "./metrics.js";
import { openApi } from "./openapi.js";
import { type Route, send, sendJson } from "./router.js";
import type { Runner } from "./runner.js";
import type { Offer } from "./settings.js";

interface Parts {
  readonly videos: readonly Route[];
  readonly metrics: Metrics;
  readonly offer: Offer;
  readonly runners: readonly Runner[];
  /** Milliseconds since 1970. */
  readonly startedAt: number;
  draining(): boolean;
}

/** All that the server answers to. Whether it lives and is ready is for everybody; the rest needs the key, where there is one. */
export function allRoutes({ videos, metrics, offer, runners, startedAt, draining }: Parts): Route[] {
  const model = { id: offer.model, object: "model", created: Math.floor(startedAt / 1000), owned_by: "ditrun" };
  const routes: Route[] = [
    ...videos,
    {
      method: "GET",
      path: "/v1/models",
      handle: ({ response }) => sendJson(response, { object: "list", data: [model] }),
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
