/** The library: everything public, and nothing else. docs/library.md says how to use it, docs/errors.md what it throws. */
export { DitrunError, type FailureCode, type FailureDetails } from "./failure.js";
export { loadPlan, type PlanRequest } from "./plan/load.js";
export type { Plan, PlanDocument } from "./plan/schema.js";
