import { z } from "zod";
import { packageVersion } from "../version.js";
import type { Route } from "./router.js";
import * as schemas from "./schemas.js";
import { variantNames } from "./variants.js";

interface Description {
  readonly summary: string;
  /** What 200 brings; text where it is no JSON. */
  readonly answer: z.ZodType | string;
}

const descriptions: Readonly<Record<string, Description>> = {
  "POST /v1/videos": { summary: "Ask for a video", answer: schemas.videoSchema },
  "GET /v1/videos": { summary: "List videos, the newest first", answer: schemas.videoListSchema },
  "GET /v1/videos/{id}": { summary: "How far a video is", answer: schemas.videoSchema },
  "DELETE /v1/videos/{id}": { summary: "Cancel a video and remove it", answer: schemas.deletedSchema },
  "POST /v1/videos/{id}/cancel": { summary: "End a video at its next step", answer: schemas.videoSchema },
  "GET /v1/videos/{id}/content": { summary: "The MP4 file, or a part of it; or its pictures", answer: "video/mp4" },
  "GET /v1/videos/{id}/events": { summary: "Follow a video as it is made", answer: "text/event-stream" },
  "GET /v1/models": { summary: "The model of this server", answer: schemas.modelListSchema },
  "GET /metrics": { summary: "Numbers for Prometheus", answer: "text/plain" },
  "GET /openapi.json": { summary: "This document", answer: z.record(z.string(), z.unknown()) },
  "GET /": { summary: "The page to make videos with", answer: "text/html" },
  "GET /healthz": { summary: "Whether the workers live", answer: z.record(z.string(), z.unknown()) },
  "GET /readyz": { summary: "Whether a video can be made at once", answer: z.record(z.string(), z.unknown()) },
};

/** The OpenAPI 3.1 document of the routes. @throws Error where one is not described. */
export function openApi(routes: readonly Route[]): object {
  const paths: Record<string, Record<string, object>> = {};
  for (const route of routes) {
    const name = `${route.method} ${route.path}`;
    const described = descriptions[name];
    if (!described) throw new Error(`The route ${name} has no description.`);
    const operations = paths[route.path] ?? {};
    operations[route.method.toLowerCase()] = operation(route, described);
    paths[route.path] = operations;
  }
  return {
    openapi: "3.1.0",
    info: { title: "ditrun", version: packageVersion(), description: "Videos from prompts." },
    paths,
    components: { securitySchemes: { key: { type: "http", scheme: "bearer" } } },
  };
}

function operation({ method, path, open }: Route, { summary, answer }: Description): object {
  const failure = { description: "Refused", content: json(schemas.errorSchema) };
  const isCreate = method === "POST" && path === "/v1/videos";
  const content = typeof answer === "string" ? { [answer]: {} } : json(answer);
  const inPath = path.includes("{id}") ? [{ name: "id", in: "path", required: true, schema: { type: "string" } }] : [];
  const inQuery = method === "GET" ? (queries[path]?.() ?? []) : [];
  return {
    summary,
    ...(open === true ? { security: [] } : { security: [{ key: [] }] }),
    parameters: [...inPath, ...inQuery],
    ...(isCreate && { requestBody: { required: true, content: formOrJson(schemas.createSchema) } }),
    responses: { 200: { description: "OK", content }, default: failure },
  };
}

const queries: Readonly<Record<string, () => object[]>> = {
  "/v1/videos": () => parametersOf(schemas.listSchema),
  "/v1/videos/{id}/content": () => parametersOf(z.object({ variant: z.enum(variantNames).default("video") })),
  "/v1/videos/{id}/events": () => parametersOf(z.object({ preview: z.enum(["true", "false"]).default("true") })),
};

function parametersOf(schema: z.ZodType): object[] {
  const { properties = {} } = z.toJSONSchema(schema, { io: "input", unrepresentable: "any" });
  return Object.entries(properties).map(([name, schema]) => ({ name, in: "query", required: false, schema }));
}

function json(schema: z.ZodType): object {
  return { "application/json": { schema: z.toJSONSchema(schema) } };
}

function formOrJson(schema: z.ZodType): object {
  const described = { schema: z.toJSONSchema(schema) };
  return { "application/json": described, "multipart/form-data": described };
}
