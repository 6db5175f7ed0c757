/** The library: everything public, and nothing else. docs/library.md says how to use it, docs/errors.md what it throws. */
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
