import { type FileMarks, marksOf, requireMarks } from "../../files/file-mark.js";
import type { LoraFile } from "../../formats/lora.js";
import type { WanModel } from "../../models/schema.js";
import { openPart } from "../../models/wan/tensors/open-part.js";
import type { WanWeights } from "../../protocol/job.js";
import type { Store } from "../store.js";
import { agreed } from "./agree.js";
import { changedBy } from "./wan-session.js";

/** LoRAs as their files are. */
export interface FoundLoras {
  readonly loras: readonly LoraFile[];
  readonly marks: FileMarks;
  /** Parameters that they change. */
  readonly changed: ReadonlySet<string>;
}

const none: FoundLoras = { loras: [], marks: new Map(), changed: new Set() };

/**
 * The files that a transformer's weights are of. People train a LoRA anew under its old name while a model is open: what was read of one
 * version is never mixed with another, on no rank.
 */
export class WanFiles {
  #laid = none;
  #base: FileMarks = new Map();

  constructor(
    private readonly model: WanModel,
    private readonly weights: WanWeights,
  ) {}

  /** Those that are laid over the weights, or will be when these are loaded. */
  get laid(): FoundLoras {
    return this.#laid;
  }

  set laid(found: FoundLoras) {
    this.#laid = found;
  }

  /**
   * @returns these LoRAs, where on some rank they or their files are others than those that are laid; undefined where all are the same.
   * @throws RequestFault on every rank where one cannot be read or does not fit.
   */
  async others(loras: readonly LoraFile[], store: Store): Promise<FoundLoras | undefined> {
    if (loras.length === 0 && this.#laid.loras.length === 0) return undefined;
    const marks = await agreed(store, "LoRA files", () => marksOf(loras.map(({ file }) => file)));
    const key = (found: Omit<FoundLoras, "changed">) => JSON.stringify([found.loras, [...found.marks]]);
    const same = key({ loras, marks }) === key(this.#laid);
    if ((await store.largest("other LoRAs", same ? 0 : 1)) === 0) return undefined;
    const changed = await agreed(store, "LoRAs", () => changedBy(loras, this.model));
    return { loras, marks, changed };
  }

  /** The checkpoint's own files are about to be read, for the first time. @throws RequestFault on every rank where one cannot be read. */
  async begin(store: Store): Promise<void> {
    this.#base = await agreed(store, "checkpoint files", async () => marksOf(await pathsOf(this.weights)));
  }

  /** @throws RequestFault on every rank where the checkpoint is not what it was when it was loaded. */
  async requireBase(store: Store): Promise<void> {
    const then = "has changed since it was loaded, so LoRAs cannot be laid over it: open the model anew";
    await agreed(store, "checkpoint as it was", () => requireMarks(this.#base, then));
  }

  /** @throws RequestFault on every rank where a file has changed while it was read. */
  async confirm(store: Store): Promise<void> {
    const then = "changed while it was loaded: run the same again";
    await agreed(store, "files as they were", () => requireMarks(new Map([...this.#base, ...this.#laid.marks]), then));
  }
}

async function pathsOf(weights: WanWeights): Promise<string[]> {
  if (weights.from === "random") return [];
  const file = await openPart(weights.transformer, "transformer");
  const paths = new Set(file.names().map((name) => file.place(name).path));
  await file.close();
  return [...paths];
}
