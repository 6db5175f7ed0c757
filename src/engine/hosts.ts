import { z } from "zod";
import { DitrunError } from "../failure.js";
import type { Leader } from "../launcher/nodes/leader.js";
import type { Settings } from "../protocol/job.js";
import { parseMessage } from "../protocol/messages.js";
import { counted } from "../text.js";

/** What a host tells of itself: the kernel module that its workers load, and how many devices there are. */
const offerSchema = z.strictObject({
  device: z.enum(["cpu", "cuda"]),
  kernels: z.string().min(1).max(4096),
  count: z.int().min(1).max(1024),
});
export type Offer = z.infer<typeof offerSchema>;

interface Host extends Offer {
  readonly name: string;
  /** That it was asked for. */
  readonly workers: number | undefined;
}

/** The hosts of a job on which workers can be started, led by this one. */
export class Hosts {
  private constructor(
    readonly leader: Leader,
    private readonly all: readonly Host[],
  ) {}

  /**
   * @param own of node 0. @param workers that it was asked for.
   * @throws DitrunError where hosts would run on different kinds of device.
   */
  static of(leader: Leader, own: Offer, workers: number | undefined): Hosts {
    const others = leader.members.map((member) => ({
      ...parseMessage(offerSchema, new TextEncoder().encode(member.offer)),
      ...{ name: member.name, workers: member.workers },
    }));
    const all = [{ ...own, name: "Node 0", workers }, ...others];
    const other = all.find(({ device }) => device !== own.device);
    if (other) {
      throw new DitrunError(
        "ERR_NO_DEVICE",
        `${other.name} would run on ${other.device}, but node 0 on ${own.device}: give all hosts the same --device.`,
      );
    }
    return new Hosts(leader, all);
  }

  /** Workers that all hosts together were asked for; undefined where one leaves that to the plan. */
  get workers(): number | undefined {
    const counts = this.all.map(({ workers }) => workers);
    return counts.includes(undefined) ? undefined : counts.reduce<number>((sum, each) => sum + (each ?? 0), 0);
  }

  /** Devices of all hosts. */
  get devices(): number {
    return this.all.reduce((sum, { count }) => sum + count, 0);
  }

  get names(): readonly string[] {
    return this.all.map(({ name }) => name);
  }

  /**
   * How many workers each host gets, node 0 first: as many as it was asked for, in turn, until there are enough; where nobody
   * asked, an equal part.
   * @throws DitrunError where there are fewer than that.
   */
  place(nproc: number): number[] {
    const { all, workers } = this;
    let left = nproc;
    const perNode = all.map(({ workers: asked }, node) => {
      const part = workers === undefined ? Math.ceil(left / (all.length - node)) : (asked ?? 0);
      const count = Math.min(part, left);
      left -= count;
      return count;
    });
    if (left === 0) return perNode;
    throw new DitrunError(
      "ERR_NPROC",
      `The plan needs ${counted(nproc, "worker")}, but the ${all.length} hosts were asked for ${workers}: change --nproc or the plan.`,
    );
  }

  /** What the ranks of a host are told: its kernel module may be elsewhere. */
  of(settings: Settings, node: number): Settings {
    const kernels = this.all[node]?.kernels;
    return kernels === undefined ? settings : { ...settings, kernels };
  }
}
