import { DitrunError } from "../../failure.js";
import type { LatentSize, Model } from "../../models/schema.js";
import { attentionDtype, meshName, type Plan } from "../schema.js";
import type { Machine } from "./device.js";
import { enumeratePlans, type Refusal } from "./enumerate.js";
import { type Evaluation, evaluate } from "./evaluate.js";

/** What plans are wanted for. */
export interface Wanted {
  readonly model: Model;
  /** Every key but the mesh. */
  readonly plan: Plan;
  /** Of all hosts together. */
  readonly workers: number;
  readonly machine: Machine;
  readonly size?: LatentSize | undefined;
  readonly oneForward?: boolean | undefined;
}

/** Plans that fit, the fastest first, and those that do not. */
export interface Ranking {
  readonly ranked: readonly Evaluation[];
  readonly refused: readonly Refusal[];
}

/** A mesh that was chosen, and what it was chosen from. */
export interface Choice extends Ranking {
  readonly best: Evaluation;
  readonly machine: Machine;
}

const GIB = 2 ** 30;
/** What the driver, workspaces and captured graphs take beside it (docs/memory.md). */
const BESIDE_BYTES = 1.5 * GIB;

/** What is compared: a video's step, which is nearly all of its time, else a forward. In milliseconds. */
export const comparedMs = ({ step, forward }: Evaluation): number => (step ?? forward).milliseconds;

/** Nearer than this, two plans count as equally fast. */
const EQUAL = 0.002;

/** The fastest first. Of those that are as fast as the first, guidance parallelism comes before the others, since it sends least. */
export function fastestFirst<Plans extends Evaluation>(evaluations: readonly Plans[]): Plans[] {
  const byTime = evaluations.toSorted((a, b) => comparedMs(a) - comparedMs(b));
  const [first] = byTime;
  if (!first) return [];
  const equal = byTime.filter((each) => comparedMs(each) <= comparedMs(first) * (1 + EQUAL));
  equal.sort((a, b) => b.plan.mesh.cfg - a.plan.mesh.cfg);
  return [...equal, ...byTime.slice(equal.length)];
}

/** All meshes of the workers, ranked by what they are expected to take. */
export function rankPlans({ model, plan, workers, machine, size, oneForward }: Wanted): Ranking {
  const { plans, refused } = enumeratePlans(model, plan, workers, { size, oneForward });
  const slow = missingDtype(plan, machine);
  if (slow !== undefined)
    return { ranked: [], refused: [...plans.map((each) => ({ plan: each, why: slow })), ...refused] };
  const evaluated = plans.map((each) => evaluate(model, each, machine, size));
  const room = (machine.device.memoryGiB * GIB) / sharingOf(workers, machine);
  // A CPU's memory is the host's, which a table cannot know.
  const fits = (each: Evaluation) => machine.device.processors === 1 || each.leastBytes + BESIDE_BYTES <= room;
  const tooLarge = evaluated
    .filter((each) => !fits(each))
    .map(({ plan: each, leastBytes }) => ({ plan: each, why: memoryReason(leastBytes, room, machine) }));
  return { ranked: fastestFirst(evaluated.filter(fits)), refused: [...tooLarge, ...refused] };
}

const sharingOf = (workers: number, { devicesPerHost, hosts }: Machine) =>
  Math.max(1, Math.ceil(workers / (devicesPerHost * hosts)));

function memoryReason(bytes: number, room: number, { device }: Machine): string {
  const gib = (value: number) => `${(value / GIB).toFixed(1)} GiB`;
  return `It needs ${gib(bytes + BESIDE_BYTES)} of device memory, and a worker has ${gib(room)} of the ${device.name}: share the weights with a larger tp, or use --fp8.`;
}

/** Why a device has no fast kernels for a plan's dtypes. */
function missingDtype(plan: Plan, { device }: Machine): string | undefined {
  const linear = plan.linear.dtype ?? plan.dtype;
  const attention = attentionDtype(plan);
  const has = device.attention.some(({ rates }) => rates[attention] !== undefined);
  const missing = device.products[linear] === undefined ? linear : has ? undefined : attention;
  return missing === undefined
    ? undefined
    : `The ${device.name} has no fast kernels for ${missing}: use bf16, or a GPU that has them.`;
}

/**
 * The mesh to run. A plan whose dtypes the device has no fast kernels for is ranked as if it were bf16, and where nothing fits the
 * memory the smallest comes first: whether it runs all the same is for the run to say.
 * @throws DitrunError ERR_PLAN_MESH where no mesh of so many workers fits the model, with the first reason.
 */
export function choosePlan(wanted: Wanted): Choice {
  const { machine, model, workers, plan, size, oneForward } = wanted;
  const ranking = rankPlans(wanted);
  const [best] = ranking.ranked;
  if (best) return { ...ranking, best, machine };
  const { plans, refused } = enumeratePlans(model, plan, workers, { size, oneForward });
  const plain = missingDtype(plan, machine) !== undefined;
  const evaluated = plans.map((each) => ({
    ...evaluate(model, plain ? inBf16(each) : each, machine, size),
    plan: each,
  }));
  const [fastest] = fastestFirst(evaluated);
  const least = evaluated.reduce(
    (a, b) => (b.leastBytes < a.leastBytes ? b : a),
    fastest ?? evaluated[0] ?? none(wanted, refused),
  );
  return { ...ranking, best: plain ? (fastest ?? least) : least, machine };
}

function inBf16(plan: Plan): Plan {
  const { attention, ring } = plan;
  return {
    ...plan,
    dtype: "bf16",
    linear: {},
    attention: { kernel: attention.kernel },
    ring: { transport: ring.transport },
  };
}

function none({ model, workers }: Wanted, refused: readonly Refusal[]): never {
  const { plan, why } = refused.find(({ plan: { mesh } }) => mesh.cfg === 1) ?? {};
  throw new DitrunError(
    "ERR_PLAN_MESH",
    `No mesh of ${workers} workers fits ${model.name}${plan ? `, as ${meshName(plan.mesh)}: ${why ?? ""}` : "."}`,
  );
}
