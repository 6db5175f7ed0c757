/** The library: everything public, and nothing else. docs/library.md says how to use it, docs/errors.md what it throws. */
export { type Client, type ClientOptions, createClient } from "./client/client.js";
export { ServerError } from "./client/server-error.js";
export type {
  CallOptions,
  ContentOptions,
  CreateOptions,
  CreateVideo,
  EventOptions,
  GenerateOptions,
  ListOptions,
  Video,
  VideoEvent,
  VideoProgress,
} from "./client/types.js";
export type { Videos } from "./client/videos.js";
export {
  type Engine,
  type EngineEvent,
  type EngineOptions,
  openEngine,
  type RunRequestOptions,
  type VideoResult,
} from "./engine/engine.js";
export type { LoraFile, VideoRequest } from "./engine/requests.js";
export { DitrunError, type FailureCode, type FailureDetails } from "./failure.js";
export {
  type LaunchEvent,
  type LaunchOptions,
  type LaunchRequest,
  type LaunchResult,
  launch,
  type RankExit,
} from "./launcher/launch.js";
export type { LaunchLog } from "./launcher/logs.js";
export { loadPlan, type PlanRequest } from "./plan/load.js";
export type { Plan, PlanDocument } from "./plan/schema.js";
