import { traitsOf } from "../../models/registry.js";
import type { LatentSize, Model } from "../../models/schema.js";
import { meshSize, type Plan } from "../schema.js";
import type { Machine } from "./device.js";
import { groundOf, placementOf, workersPerHost } from "./placement.js";
import { type Prediction, predict, type Setting } from "./predict.js";

/** What a plan is expected to take. */
export interface Evaluation {
  readonly plan: Plan;
  /** One forward; under cfg both texts' at the same time. */
  readonly forward: Prediction;
  /** Of a model that makes videos. */
  readonly step?: Prediction;
  readonly decode?: Prediction;
  /** Device memory of a rank for forwards alone, with everything at once, and at the least. */
  readonly forwardBytes: number;
  readonly bytes: number;
  readonly leastBytes: number;
}

/** What a plan runs on: where its groups lie, and how many workers share a device. */
export function settingOf(plan: Plan, machine: Machine): Setting {
  const world = meshSize(plan.mesh);
  return {
    ...{ device: machine.device, links: machine.links, placement: placementOf(plan, machine) },
    devices: Math.min(world, machine.devicesPerHost * machine.hosts),
    sharing: Math.ceil(workersPerHost(plan, machine) / machine.devicesPerHost),
  };
}

/** @param plan one that fits the model. */
export function evaluate(model: Model, plan: Plan, machine: Machine, size?: LatentSize): Evaluation {
  const setting = settingOf(plan, machine);
  const ground = groundOf(setting.placement, machine);
  const { forward, video, forwardBytes, bytes, leastBytes } = traitsOf(model).onPaper(plan, size, ground);
  return {
    plan,
    forward: predict(forward, setting),
    ...(video && { step: predict(video.step, setting), decode: predict(video.decode, setting) }),
    ...{ forwardBytes, bytes, leastBytes },
  };
}
