import { DitrunError } from "../failure.js";

/** What a tensor of a LoRA file is to its module. `upBias` is the bias of the up projection. */
export type LoraRole =
  | "down"
  | "up"
  | "upBias"
  | "alpha"
  | "diff"
  | "diffBias"
  | "diffModulation"
  | "setWeight"
  | "setBias"
  | `hada${1 | 2}${"Up" | "Down"}`
  | `kron${1 | 2}${"" | "Up" | "Down"}`;

export interface LoraName {
  /** As the file calls it. */
  readonly module: string;
  readonly role: LoraRole;
}

/**
 * Ends of names, by role. PEFT writes lora_A and lora_B, with or without an adapter's name; kohya lora_down and lora_up; older diffusers
 * `_lora.down`, `.lora.down` and `lora_linear_layer.down`; LyCORIS w_norm and b_norm. Their pairs mean the same. LoHa's and LoKr's are
 * LyCORIS' own (lycoris/modules/loha.py, lokr.py).
 */
const ends: readonly (readonly [LoraRole, RegExp])[] = [
  ["down", /\.lora_(?:A|down)(?:\.(?!bias\b)\w+)?(?:\.weight)?$/],
  ["down", /(?:[._]lora|\.lora_linear_layer)\.down(?:\.weight)?$/],
  ["up", /\.lora_(?:B|up)(?:\.(?!bias\b)\w+)?(?:\.weight)?$/],
  ["up", /(?:[._]lora|\.lora_linear_layer)\.up(?:\.weight)?$/],
  ["upBias", /\.lora_(?:B|up)(?:\.\w+)?\.bias$/],
  ["alpha", /(?:[._]lora)?\.(?:lora_)?alpha$/],
  ["diff", /\.(?:diff|w_norm)$/],
  ["diffBias", /\.(?:diff_b|b_norm)$/],
  ["diffModulation", /\.diff_m$/],
  ["setWeight", /\.set_weight$/],
  ["setBias", /\.set_bias$/],
  ["hada1Up", /\.hada_w1_a$/],
  ["hada1Down", /\.hada_w1_b$/],
  ["hada2Up", /\.hada_w2_a$/],
  ["hada2Down", /\.hada_w2_b$/],
  ["kron1", /\.lokr_w1$/],
  ["kron1Up", /\.lokr_w1_a$/],
  ["kron1Down", /\.lokr_w1_b$/],
  ["kron2", /\.lokr_w2$/],
  ["kron2Up", /\.lokr_w2_a$/],
  ["kron2Down", /\.lokr_w2_b$/],
];

/** Roles of tensors that are one change together with others of their module. */
export function isOfProduct(role: LoraRole): boolean {
  return role === "up" || role === "down" || role === "alpha" || /^(?:hada|kron)/.test(role);
}

/** Adapters that are no sum of the weight and a product that ditrun makes, by a name that only they have. */
const others: readonly (readonly [RegExp, string])[] = [
  [/\.dora_scale$|\.lora_magnitude_vector\b/, "DoRA"],
  [/\.hada_t\d/, "LoHa in Tucker form"],
  [/\.lokr_t\d/, "LoKr in Tucker form"],
  [/\.oft_(?:blocks|diag|R)\b/, "OFT"],
  [/\.lora_mid\b/, "LoCon in Tucker form"],
  [/[qkvo]_loras\./, "Stand-In"],
  [/\.reshape_weight$/, "LoRA that changes a layer's shape"],
];

/** What the tensor is; undefined where its name says nothing of the kind. */
export function loraName(name: string): LoraName | undefined {
  for (const [role, end] of ends) {
    const found = end.exec(name);
    if (found) return { module: name.slice(0, found.index), role };
  }
  return undefined;
}

/** Whether a name is that of a pair, or of an adapter of another kind: no model has a tensor of such a name. */
export function isAdapterName(name: string): boolean {
  const role = loraName(name)?.role;
  return (
    (role !== undefined && role !== "alpha" && isOfProduct(role)) || others.some(([pattern]) => pattern.test(name))
  );
}

/** @throws DitrunError for an adapter of another kind, which applied as a LoRA would be wrong. */
export function refuseOtherAdapters(path: string, names: readonly string[]): void {
  for (const [pattern, kind] of others) {
    const name = names.find((each) => pattern.test(each));
    if (name === undefined) continue;
    throw new DitrunError(
      "ERR_LORA",
      `${path} is a ${kind} (it has ${name}), and ditrun applies plain LoRA, LoHa and LoKr: merge it with the program that made it, and give the result to --transformer.`,
    );
  }
}
