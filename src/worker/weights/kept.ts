import type { Device } from "../runtime/device.js";
import { type Allocation, Region, SameMemory } from "../runtime/region.js";
import { type Tensor, tensor, tensorBytes } from "../runtime/tensor.js";
import { LentSource } from "./lent-source.js";
import type { LoadMeter } from "./load-meter.js";
import type { WeightSource } from "./source.js";

/** What a layer has loaded: its tensors by what they are, and numbers that were found on the way. */
export interface LoadedPart {
  readonly tensors: Readonly<Record<string, Tensor>>;
  /** They may come with the last of the tensors, and change where the part is renewed: layers look whenever they need them. */
  readonly numbers?: number[];
}

/** A part that is kept, and how to load it anew. */
interface KeptPart {
  readonly part: LoadedPart;
  readonly load: () => Promise<LoadedPart>;
  /** Parameters that it was made of. */
  readonly asked: ReadonlySet<string>;
  readonly allocations: readonly Allocation[];
}

/**
 * The weights of one model on the device: loaded once, then given to every instance of its layers that is made, for another size
 * of video for instance. May be moved to host memory and back, or loaded anew where they are.
 */
export class KeptWeights {
  /** What loads them, so that they can be renewed: lent a source meanwhile. */
  readonly source = new LentSource();
  readonly #parts = new Map<string, KeptPart>();
  readonly #region = new Region();
  #onHost: { readonly start: number; readonly bytes: Uint8Array }[] | undefined;

  constructor(
    private readonly device: Device,
    /** Told of what will come, and of what has. */
    private readonly meter?: LoadMeter,
  ) {}

  /** Bytes on the device. */
  get bytes(): number {
    return this.#region.bytes;
  }

  /** Bytes that wait on the host, and will take as much on the device. */
  get bytesOnHost(): number {
    return (this.#onHost ?? []).reduce((sum, { bytes }) => sum + bytes.byteLength, 0);
  }

  get allocations(): readonly Allocation[] {
    return this.#region.allocations;
  }

  /** The numbers of all parts, in the order in which these were loaded. Other ones of as many may be set: layers find them when they look. */
  get numbers(): readonly (readonly number[])[] {
    return [...this.#parts.values()].map(({ part }) => [...(part.numbers ?? [])]);
  }

  set numbers(all: readonly (readonly number[])[]) {
    for (const [index, { part }] of [...this.#parts.values()].entries()) {
      const own = all[index] ?? [];
      part.numbers?.splice(0, own.length, ...own);
    }
  }

  /** The part of this name: as it was loaded before, else as `load` begins to load it now. A rehearsal's is not kept. */
  async of<Part extends LoadedPart>(name: string, load: () => Promise<Part>): Promise<LoadedPart> {
    const known = this.#parts.get(name);
    if (known) return known.part;
    if (this.device.rehearsing) {
      const part = await load();
      this.meter?.expect(bytesOf(part));
      return part;
    }
    const first = this.#region.allocations.length;
    const { value: part, asked } = await this.source.noting(() => this.device.within(this.#region, load));
    this.#parts.set(name, { part, load, asked, allocations: this.#region.allocations.slice(first) });
    await this.device.reader.after(() => this.meter?.add(bytesOf(part)));
    return part;
  }

  /** Whether nothing is loaded. */
  get empty(): boolean {
    return this.#parts.size === 0;
  }

  /**
   * Loads the parts that are made of certain parameters anew, of another source, into the memory that they have: programs and graphs
   * find them where they were. The device must be idle.
   * @returns whether numbers of a part have changed, which graphs hold.
   */
  async renew(source: WeightSource, changes: (parameter: string) => boolean): Promise<boolean> {
    const { device, meter } = this;
    const touched = [...this.#parts.values()].filter(({ asked }) => [...asked].some(changes));
    for (const { part } of touched) meter?.expect(bytesOf(part));
    const anew: { readonly part: LoadedPart; readonly numbers: readonly number[] }[] = [];
    await this.source.lend(source, async () => {
      for (const { part, load, allocations } of touched) {
        const { numbers = [] } = await device.within(new SameMemory(allocations), load);
        anew.push({ part, numbers });
        await device.reader.after(() => meter?.add(bytesOf(part)));
      }
    });
    await device.synchronize();
    let numbersChanged = false;
    for (const { part, numbers } of anew) {
      numbersChanged ||= numbers.some((value, index) => value !== part.numbers?.[index]);
      part.numbers?.splice(0, numbers.length, ...numbers);
    }
    return numbersChanged;
  }

  /** Moves all of it to host memory. Layers that were made with it must not be used any more; the device must be idle. */
  async toHost(): Promise<void> {
    const { device } = this;
    const copies: { readonly start: number; readonly bytes: Uint8Array }[] = [];
    for (const { address, bytes } of this.#region.allocations) {
      copies.push({ start: address, bytes: await device.download(tensor(address, "e4m3", [bytes])) });
    }
    device.free(this.#region);
    this.#onHost = copies;
  }

  /** Brings it back to the device, for layers that are made from then on. */
  async toDevice(): Promise<void> {
    const { device } = this;
    const copies = this.#onHost;
    if (!copies) return;
    const moved: { readonly start: number; readonly bytes: number; readonly to: number }[] = [];
    await device.within(this.#region, async () => {
      for (const { start, bytes } of copies) {
        const there = device.allocatePersistent("e4m3", [bytes.byteLength]);
        await device.upload(there, bytes);
        moved.push({ start, bytes: bytes.byteLength, to: there.address });
      }
    });
    const newHome = (address: number): number => {
      const home = moved.find(({ start, bytes }) => address >= start && address < start + bytes);
      if (!home) throw new Error("A kept weight lies outside of its region.");
      return home.to + (address - home.start);
    };
    const place = (old: Tensor): Tensor => ({
      ...old,
      address: newHome(old.address),
      ...(old.rowScale && { rowScale: place(old.rowScale) }),
    });
    for (const [name, { part, ...kept }] of this.#parts) {
      const there = Object.fromEntries(Object.entries(part.tensors).map(([key, each]) => [key, place(each)]));
      const allocations = kept.allocations.map((each) => ({ ...each, address: newHome(each.address) }));
      this.#parts.set(name, { ...kept, allocations, part: { ...part, tensors: there } });
    }
    this.#onHost = undefined;
  }

  /** Frees all of it; the next use loads it anew. The device must be idle. */
  free(): void {
    this.device.free(this.#region);
    this.#parts.clear();
    this.#onHost = undefined;
  }
}

function bytesOf({ tensors }: LoadedPart): number {
  const each = Object.values(tensors).flatMap((all) => (all.rowScale ? [all, all.rowScale] : [all]));
  return each.reduce((sum, { dtype, shape }) => sum + tensorBytes(dtype, shape), 0);
}

/** As KeptWeights.of, for loaders that may have nothing to keep weights in. */
export function keep<Part extends LoadedPart>(
  { kept }: { readonly kept?: KeptWeights | undefined },
  name: string,
  load: () => Promise<Part>,
): Promise<LoadedPart> {
  return kept ? kept.of(name, load) : load();
}

/** One tensor, as `keep` has it. */
export async function keepTensor(
  loader: { readonly kept?: KeptWeights | undefined },
  name: string,
  load: () => Promise<Tensor>,
): Promise<Tensor> {
  const { tensors } = await keep(loader, name, async () => ({ tensors: { it: await load() } }));
  return needed(tensors, "it");
}

/** A tensor that must be among those of a part. */
export function needed(tensors: LoadedPart["tensors"], name: string): Tensor {
  const found = tensors[name];
  if (!found) throw new Error(`A loaded part has no ${name}.`);
  return found;
}
