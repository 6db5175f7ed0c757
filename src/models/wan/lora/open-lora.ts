import { DitrunError } from "../../../failure.js";
import type { Lora, LoraChange, LoraFile, LoraPair } from "../../../formats/lora.js";
import { isOfProduct, type LoraRole, loraName, refuseOtherAdapters } from "../../../formats/lora-names.js";
import { openTensors } from "../../../formats/open-tensors.js";
import { describe, type TensorFile } from "../../../formats/tensor-file.js";
import { counted } from "../../../text.js";
import type { WanModel } from "../../schema.js";
import { readAlphas } from "./alphas.js";
import { ModuleNames, parameterShapes, type Shape } from "./modules.js";

/** The tensors of one module, by what they are to it. */
type Parts = Partial<Record<LoraRole, string>>;

/**
 * Opens a LoRA file of any spelling and finds what it changes in a model's transformer. Every tensor is used, or ignored by a rule that
 * the result names.
 * @throws DitrunError when a tensor is unknown or of another shape than the model's, when it is no LoRA, or none of it applies.
 */
export async function openLora(path: string, model: WanModel): Promise<Lora> {
  const file = await openTensors(path);
  try {
    return await loraOf(file, model);
  } catch (error) {
    await file.close();
    throw error;
  }
}

/** What a LoRA changes, for people: `480 of 492 weights changed, 12 ignored: …`. @throws DitrunError as openLora does. */
export async function describeLora({ file: path, strength }: LoraFile, model: WanModel): Promise<string> {
  const { file, changes, ignored } = await openLora(path, model);
  await file.close();
  const left = [...ignored.values()].reduce((sum, count) => sum + count, 0);
  const reasons = [...ignored.keys()].join(", ");
  const rest = left === 0 ? "" : `, ${left} ignored: ${model.name} lacks ${reasons}`;
  return `${path} at strength ${strength}: ${changes.size} of ${changes.size + left} weights changed${rest}.`;
}

async function loraOf(file: TensorFile, model: WanModel): Promise<Lora> {
  const { path } = file;
  refuseOtherAdapters(path, file.names());
  const modules = new ModuleNames(model);
  const found = new Map<string, Parts>();
  const ignored = new Map<string, Set<string>>();
  const unknown: string[] = [];
  for (const name of file.names()) {
    const own = loraName(name);
    const at = own && modules.find(own.module);
    if (!own || !at) unknown.push(name);
    else if ("absent" in at) {
      // A pair and its alpha are one change.
      const what = `${own.module} ${isOfProduct(own.role) ? "product" : own.role}`;
      ignored.set(at.absent, (ignored.get(at.absent) ?? new Set()).add(what));
    } else {
      const parts = found.get(at.module) ?? {};
      const twin = parts[own.role];
      if (twin !== undefined) refuse(path, `both ${twin} and ${name} are for ${at.module}`);
      found.set(at.module, { ...parts, [own.role]: name });
    }
  }
  requireLora(path, file.names(), unknown, found, model);
  const alphas = await readAlphas(file, found);
  const shapes = parameterShapes(model);
  const changes = new Map<string, LoraChange[]>();
  for (const [module, parts] of found) {
    for (const [parameter, change] of changesOf(file, module, parts, alphas)) {
      checkShapes(file, shapes.get(parameter), parameter, change, model);
      const others = changes.get(parameter) ?? [];
      changes.set(parameter, change.kind === "replacement" ? [change, ...others] : [...others, change]);
    }
  }
  return { file, changes, ignored: new Map([...ignored].map(([what, all]) => [what, all.size])) };
}

function refuse(path: string, why: string): never {
  throw new DitrunError("ERR_LORA", `${path} cannot be applied as a LoRA: ${why}.`);
}

/** @throws DitrunError unless all names are known and some of them are of this model. */
function requireLora(
  path: string,
  names: readonly string[],
  unknown: readonly string[],
  found: ReadonlyMap<string, Parts>,
  { name, layers }: WanModel,
): void {
  const [first] = unknown;
  if (!names.some((each) => loraName(each)))
    refuse(
      path,
      `none of its ${counted(names.length, "tensor")} is a LoRA's, as ${first ?? "nothing"}; weights go to --transformer`,
    );
  if (found.size === 0) refuse(path, `nothing of it belongs to ${name}'s ${layers} blocks, as ${names[0]}`);
  if (first !== undefined)
    refuse(path, `${counted(unknown.length, "tensor")} of ${names.length} mean nothing for ${name}, as ${first}`);
}

/** The changes of a module's parameters. @throws DitrunError for half a pair. */
function* changesOf(
  { path }: TensorFile,
  module: string,
  parts: Parts,
  alphas: (module: string) => number,
): Generator<[parameter: string, change: LoraChange]> {
  const { upBias, alpha, diff, diffBias, diffModulation, setWeight, setBias } = parts;
  const pair = pairIn(path, parts.up, parts.down);
  const factored = [...hadamardIn(path, parts), ...kroneckerIn(path, parts)];
  if (!pair && (upBias ?? (factored.length === 0 ? alpha : undefined)) !== undefined)
    refuse(path, `${upBias ?? alpha} has no projections beside it`);
  if (setWeight !== undefined) yield [`${module}.weight`, { kind: "replacement", tensor: setWeight }];
  if (setBias !== undefined) yield [`${module}.bias`, { kind: "replacement", tensor: setBias }];
  for (const change of factored) yield [`${module}.weight`, { ...change, scale: alphas(module) }];
  if (pair) {
    const scale = alphas(module);
    yield [`${module}.weight`, { kind: "product", ...pair, scale }];
    if (upBias !== undefined) yield [`${module}.bias`, { kind: "sum", tensor: upBias, scale }];
  }
  if (diff !== undefined) yield [`${module}.weight`, { kind: "sum", tensor: diff, scale: 1 }];
  if (diffBias !== undefined) yield [`${module}.bias`, { kind: "sum", tensor: diffBias, scale: 1 }];
  if (diffModulation !== undefined) yield [`${module}.modulation`, { kind: "sum", tensor: diffModulation, scale: 1 }];
}

/** @throws DitrunError for half a pair. */
function pairIn(path: string, up: string | undefined, down: string | undefined): LoraPair | undefined {
  if (up !== undefined && down !== undefined) return { up, down };
  if (up !== undefined || down !== undefined)
    refuse(path, `${down ?? up} has no ${down === undefined ? "down" : "up"} projection beside it`);
  return undefined;
}

/** LoHa's change, if there is one. @throws DitrunError for a part of it. */
function hadamardIn(path: string, { hada1Up, hada1Down, hada2Up, hada2Down }: Parts) {
  const first = pairIn(path, hada1Up, hada1Down);
  const second = pairIn(path, hada2Up, hada2Down);
  if (first && second) return [{ kind: "hadamard", pairs: [first, second] }] as const;
  if (first || second) refuse(path, `${(first ?? second)?.up} has no second pair beside it`);
  return [];
}

/** LoKr's change, if there is one. @throws DitrunError for a part of it. */
function kroneckerIn(path: string, { kron1, kron1Up, kron1Down, kron2, kron2Up, kron2Down }: Parts) {
  const first = kron1 ?? pairIn(path, kron1Up, kron1Down);
  const second = kron2 ?? pairIn(path, kron2Up, kron2Down);
  if (first && second) return [{ kind: "kronecker", factors: [first, second] }] as const;
  const one = first ?? second;
  if (one) refuse(path, `${typeof one === "string" ? one : one.up} has no other factor beside it`);
  return [];
}

const product = (shape: Shape) => shape.reduce<number | undefined>((all, each) => each && all && all * each, 1);

/** @throws DitrunError where tensors do not fit the parameter that they change. */
function checkShapes(
  file: TensorFile,
  shape: Shape | undefined,
  parameter: string,
  change: LoraChange,
  { name }: WanModel,
): void {
  const { path } = file;
  const tensor = tensorsOf(change)[0] ?? "";
  if (!shape) refuse(path, `${tensor} is for ${parameter}, which ${name} does not have`);
  const misfit = (which: string) =>
    refuse(
      path,
      `${which} is ${describe(file.info(which))}, but ${parameter} of ${name} is [${shape.join(", ")}]; is it for another model?`,
    );
  const [rows, ...rest] = shape;
  const columns = product(rest);
  /** Rows and columns of a pair's product. */
  const sizesOf = ({ up, down }: LoraPair): [number, number] => {
    const [rank, ...inputs] = file.info(down).shape;
    const [outputs = 0, rankOfUp, ...ones] = file.info(up).shape;
    if (ones.some((length) => length !== 1)) misfit(up);
    if (inputs.length === 0) misfit(down);
    if (rank !== rankOfUp || rank === 0) refuse(path, `${down} has the rank ${rank}, but ${up} has ${rankOfUp}`);
    return [outputs, product(inputs) ?? 0];
  };
  const fits = ([outputs, inputs]: readonly [number, number], up: string, down = up) => {
    if (rest.length === 0 || outputs !== rows) misfit(up);
    if (columns !== undefined && inputs !== columns) misfit(down);
  };
  switch (change.kind) {
    case "product":
      fits(sizesOf(change), change.up, change.down);
      return;
    case "hadamard":
      for (const pair of change.pairs) fits(sizesOf(pair), pair.up, pair.down);
      return;
    case "kronecker": {
      const [first, second] = change.factors.map((factor) => {
        if (typeof factor !== "string") return sizesOf(factor);
        const [outputs = 0, ...inputs] = file.info(factor).shape;
        if (inputs.length === 0) misfit(factor);
        return [outputs, product(inputs) ?? 0] as const;
      });
      if (first && second) fits([first[0] * second[0], first[1] * second[1]], tensor);
      return;
    }
    default: {
      const wanted = product(shape);
      if (wanted !== undefined && product(file.info(tensor).shape) !== wanted) misfit(tensor);
    }
  }
}

/** The tensors of a change. */
function tensorsOf(change: LoraChange): string[] {
  const namesOf = (factor: string | LoraPair) => (typeof factor === "string" ? [factor] : [factor.down, factor.up]);
  if (change.kind === "product") return namesOf(change);
  if (change.kind === "hadamard") return change.pairs.flatMap(namesOf);
  return change.kind === "kronecker" ? change.factors.flatMap(namesOf) : [change.tensor];
}
