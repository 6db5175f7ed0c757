import { DitrunError } from "../../../../src/failure.js";
import { launchOnHosts } from "../../../../src/launcher/launch.js";
import { openOwnLog } from "../../../../src/launcher/logs.js";
import { type FollowerOptions, follow } from "../../../../src/launcher/nodes/follower.js";
import { followingPlace } from "../../../../src/launcher/nodes/following-place.js";
import { curvePairs, makeJobKey } from "../../../../src/launcher/nodes/job-key.js";
import { Leader } from "../../../../src/launcher/nodes/leader.js";
import { rankProgram } from "../../../../src/launcher/rank-program.js";

const common = { version: "1", job: "test", command: "same" };

/** How a launcher ended: with a code, or with what it threw. */
export interface Ended {
  readonly exitCode: number;
  readonly error: DitrunError | undefined;
  /** Milliseconds since `since`, by performance.now(). */
  readonly at: number;
}

/** The launchers of several hosts in this process, on addresses of the loopback. Programs are lines of sh. */
export class SimulatedHosts {
  readonly key = makeJobKey();
  readonly warnings: string[] = [];
  readonly #controllers: AbortController[] = [];
  readonly #ends: Promise<Ended>[] = [];
  #leader: Leader | undefined;

  constructor(
    private readonly nodes: number,
    /** Of each host. */
    private readonly nproc: number,
    private readonly script: (rank: number) => string,
    private readonly timeoutSeconds = 20,
  ) {}

  /** Opens node 0; it does not wait for the others yet. */
  async lead(): Promise<Leader> {
    const warn = (sentence: string) => this.warnings.push(sentence);
    this.#leader = await Leader.open({
      ...{ ...common, nodes: this.nodes, host: "host0", address: "127.0.0.1", port: 0, warn },
      ...{ keys: curvePairs(this.key, "the test"), timeoutSeconds: this.timeoutSeconds },
    });
    return this.#leader;
  }

  /** Starts the launcher of another host. */
  follow(node: number | undefined, changes: Partial<FollowerOptions> & { readonly key?: string } = {}): Promise<Ended> {
    const { key = this.key, ...more } = changes;
    const port = changes.locate === undefined ? (this.#leader?.port ?? 0) : 0;
    const controller = new AbortController();
    this.#controllers[node ?? 0] = controller;
    const followed = follow({
      ...{ ...common, nodes: this.nodes, node, workers: this.nproc, offer: "{}", localAddress: undefined },
      locate: async () => ({ host: "127.0.0.1", port, keys: curvePairs(key, "the test"), mayChange: false }),
      timeoutSeconds: this.timeoutSeconds,
      log: openOwnLog(),
      program: (rank, start) => rankProgram(this.#command(rank), followingPlace(rank, start)),
      signal: controller.signal,
      ...more,
    });
    const ended = endOf(followed);
    this.#ends.push(ended);
    return ended;
  }

  /** Sends a signal to a host's launcher, as a user would. */
  interrupt(node: number, signal: AbortController["signal"] | string): void {
    this.#controllers[node]?.abort(
      new DitrunError("ERR_INTERRUPTED", `The job was ended by ${signal}.`, { exitCode: 143 }),
    );
  }

  /** Runs the job on node 0, and tells the others how it ended. @returns node 0's end. */
  async run(): Promise<Ended> {
    const leader = this.#leader ?? (await this.lead());
    const controller = new AbortController();
    this.#controllers[0] = controller;
    const perNode = Array.from({ length: this.nodes }, () => this.nproc);
    const body = async () => {
      await leader.gather();
      const command = ["sh", "-c", `case $RANK in ${this.#cases()} esac`] as const;
      const size = this.nodes * this.nproc;
      await launchOnHosts({ command, nproc: size, leader, perNode }, { signal: controller.signal });
      return 0;
    };
    const ended = await endOf(body());
    const { exitCode, error } = ended;
    const { code, message = "", rank, host, signal } = error ?? {};
    const failure = { message, ...(rank !== undefined && { rank }), ...(host && { host }), ...(signal && { signal }) };
    await leader.over({ exitCode, ...(code && { failure: { code, ...failure } }) });
    return ended;
  }

  /** Starts all, and waits for all. @returns how each ended, node 0 first. */
  async runAll(): Promise<Ended[]> {
    await this.lead();
    for (let node = 1; node < this.nodes; node++) void this.follow(node);
    const first = await this.run();
    return [first, ...(await Promise.all(this.#ends))];
  }

  #command(rank: number): readonly [string, ...string[]] {
    return ["sh", "-c", this.script(rank)];
  }

  #cases(): string {
    return Array.from({ length: this.nproc }, (_, rank) => `${rank}) ${this.script(rank)} ;;`).join(" ");
  }
}

async function endOf(work: Promise<number>): Promise<Ended> {
  try {
    return { exitCode: await work, error: undefined, at: performance.now() };
  } catch (error) {
    if (!(error instanceof DitrunError)) throw error;
    return { exitCode: error.exitCode, error, at: performance.now() };
  }
}
