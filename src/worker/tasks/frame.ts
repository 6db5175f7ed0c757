import { checkDtypes, type Plan } from "../../plan/schema.js";
import { hostOfRanks } from "../../protocol/host-runs.js";
import type { Settings, WanGenerateTask } from "../../protocol/job.js";
import type { MemoryNeed } from "../../protocol/results.js";
import { Context } from "../comm/context.js";
import { placeOnHost } from "../environment.js";
import { Arena } from "../runtime/arena.js";
import { Device } from "../runtime/device.js";
import { Region } from "../runtime/region.js";
import { type Store, scoped } from "../store.js";
import { agreed } from "./agree.js";
import { Program } from "./program.js";
import { Budget } from "./wan-memory.js";
import { OpenWan } from "./wan-open.js";

/** What all tasks of a worker run in: its device, and the model that stays on it from one request to the next. */
export class Frame {
  #open: { readonly key: string; readonly wan: OpenWan } | undefined;
  #contexts = 0;

  private constructor(
    readonly device: Device,
    readonly stays: boolean,
    /** The number of each rank's host. */
    private readonly hosts: readonly number[] | undefined,
  ) {}

  /** Opens this rank's device. @throws DitrunError when it cannot be opened. */
  static open({ kernels, firstDevice = 0, stays, hosts }: Omit<Settings, "id" | "device" | "timeoutSeconds">): Frame {
    const { rank, size } = placeOnHost();
    return new Frame(Device.open(kernels, firstDevice + rank, size), stays ?? false, hosts && hostOfRanks(hosts));
  }

  /** Runs a task that leaves nothing behind, in memory of its own, with a context for its plan. */
  async alone<T>(plan: Plan, store: Store, body: (context: Context) => Promise<T>): Promise<T> {
    checkDtypes(plan);
    await this.#closeModel();
    const { device } = this;
    const region = new Region();
    device.arena = new Arena();
    const result = await device.within(region, async () => {
      const context = await this.#makeContext(plan, store);
      const value = await body(context);
      await device.synchronize();
      await context.close();
      return value;
    });
    // A failure ends the process, and with it everything that a tidy end would give back.
    device.free(region);
    return result;
  }

  /**
   * What a body of `alone` needs of device memory, with nothing allocated. @param build loads, and measures what is to run.
   * @throws RequestFault on every rank where it does not fit, or a file cannot be read.
   */
  async rehearse(plan: Plan, store: Store, build: (context: Context) => Promise<unknown>): Promise<MemoryNeed> {
    checkDtypes(plan);
    await this.#closeModel();
    const base = await Context.create(this.device, scoped(store, `context-${this.#contexts++}`), plan);
    const program = await Program.open(base, store, "rehearsal");
    const budget = new Budget(this.device, placeOnHost().size);
    const made = await agreed(store, "rehearsal", () => program.rehearse(build));
    const neededBytes = made + this.device.reader.bytes;
    await agreed(store, "memory", async () => {
      if (neededBytes > budget.bytes) budget.refuse(store.rank, neededBytes, "");
    });
    await program.free();
    await base.close();
    return { neededBytes, availableBytes: budget.bytes, encoderFirst: false, hostBytes: 0 };
  }

  /** The model of a request, which stays until another is asked for. */
  async openWan(task: Pick<WanGenerateTask, "model" | "plan" | "weights">, store: Store): Promise<OpenWan> {
    const { model, plan, weights } = task;
    const key = JSON.stringify([model, plan, weights]);
    if (this.#open?.key === key) return this.#open.wan;
    checkDtypes(plan);
    await this.#closeModel();
    const base = await this.#makeContext(plan, store);
    const wan = await OpenWan.open(base, task, this.stays);
    this.#open = { key, wan };
    return wan;
  }

  /** Gives everything back. Every rank calls it. */
  async close(): Promise<void> {
    await this.#closeModel();
    await this.device.synchronize();
    this.device.close();
  }

  #makeContext(plan: Plan, store: Store): Promise<Context> {
    return Context.create(this.device, scoped(store, `context-${this.#contexts++}`), plan, this.hosts);
  }

  async #closeModel(): Promise<void> {
    await this.#open?.wan.close();
    this.#open = undefined;
  }
}
