import { createHash } from "node:crypto";
import { hostname } from "node:os";
import { join } from "node:path";
import { chooseDevice, type DeviceChoice } from "../engine/choose-device.js";
import { Hosts, type Offer } from "../engine/hosts.js";
import { followingWorker } from "../engine/worker-program.js";
import { DitrunError } from "../failure.js";
import { homeFolder } from "../files/home-folder.js";
import type { LedHosts } from "../launcher/attempts.js";
import type { Allocation } from "../launcher/cluster/allocation.js";
import type { Log } from "../launcher/logs.js";
import { type FollowerOptions, follow } from "../launcher/nodes/follower.js";
import type { Leader } from "../launcher/nodes/leader.js";
import { lead, leaderIsHere, locator, type MeetOptions } from "../launcher/nodes/meet.js";
import { mostSentence } from "../protocol/node-messages.js";
import { counted } from "../text.js";
import { packageVersion } from "../version.js";
import { endOnInterrupt, interruptExitCode, interruption, interruptSignals } from "./interrupts.js";
import { givenJobKey } from "./job-key.js";
import { hostsOptions } from "./options/hosts.js";
import type { LaunchOptions } from "./options/launch.js";
import type { OutputOptions } from "./options/output.js";
import { ownAllocation } from "./own-allocation.js";
import { sessionLog } from "./session-log.js";

/** What the options of a command that starts processes say. */
export type JobOptions = LaunchOptions & OutputOptions;

/** Options that may differ from host to host; all others must be the same, so that all know what the job is. */
const ofOneHost = [...Object.keys(hostsOptions), ...["nproc", "master-port", "log-level", "log-dir", "json", "device"]];

/** This launcher among those of the job's other hosts: it leads, follows, or is alone. */
export class JobHosts {
  #hosts: Hosts | undefined;
  #workers: number | undefined;
  #close = async () => {};

  private constructor(
    private readonly options: JobOptions,
    private readonly allocation: Allocation,
    /** Of what the job is. */
    private readonly command: string,
    private readonly meet: MeetOptions | undefined,
    private readonly leader: Leader | undefined,
    /** For the log, once there is one. */
    private readonly notes: Notes,
  ) {}

  /**
   * Finds out what hosts the job has; where this one leads, it listens from now on.
   * @param given the texts of the command's options, and what else makes the job the same on all hosts.
   * @throws DitrunError where the hosts are told of in contradictory ways, or the key is missing.
   */
  static async open(options: JobOptions, given: Iterable<readonly [string, unknown]>): Promise<JobHosts> {
    const allocation = ownAllocation(options);
    const notes = new Notes();
    const command = digestOf(given);
    const alone = allocation.nodes === 1 || options.dryRun;
    const meet = alone ? undefined : await meetingOf(options, allocation);
    const said = [allocation.why, meet && whereNode0Is(meet)].filter(Boolean);
    if (said.length > 0) notes.info(said.join(" "));
    if (meet === undefined) return new JobHosts(options, allocation, command, undefined, undefined, notes);
    const { leader: name, nodeRank } = allocation;
    const leads = nodeRank === 0 || (nodeRank === undefined && name !== undefined && (await leaderIsHere(name)));
    if (!leads) return new JobHosts(options, allocation, command, meet, undefined, notes);
    const own = {
      ...commonOf(allocation, command),
      host: hostname(),
      warn: (sentence: string) => notes.warn(sentence),
    };
    try {
      const { leader, close } = await lead(meet, own);
      const hosts = new JobHosts(options, allocation, command, meet, leader, notes);
      hosts.#endWith(leader, close);
      return hosts;
    } catch (error) {
      // On one host with node 0, where nobody was given a number.
      const follows = nodeRank === undefined && error instanceof DitrunError && error.code === "ERR_PORT_TAKEN";
      if (!follows) throw error;
      return new JobHosts(options, allocation, command, meet, undefined, notes);
    }
  }

  /** A signal that no job hears ends the other hosts, too. */
  #endWith(leader: Leader, close: () => Promise<void>): void {
    const stopListening = endOnInterrupt(async (signal) => {
      const { code, message } = interruption(signal, `Node 0 (${hostname()}) was ended by ${signal}.`);
      await leader.over({ exitCode: interruptExitCode(signal), failure: { code, message } });
      await close();
    });
    this.#close = async () => {
      await close();
      stopListening();
    };
  }

  /** Whether another host leads, so that this one does as it is told. */
  get follows(): boolean {
    return this.meet !== undefined && this.leader === undefined;
  }

  /** Where this host leads: the hosts on which workers can be started. */
  get hosts(): Hosts | undefined {
    return this.#hosts;
  }

  get several(): boolean {
    return this.allocation.nodes > 1;
  }

  /** Waits until all hosts have come, where this one leads. @throws DitrunError naming those that have not. */
  async gather(device: DeviceChoice, { logger }: Log): Promise<void> {
    this.notes.to(logger);
    this.#workers = workersAsked(this.options, this.allocation, device);
    const { leader, allocation } = this;
    if (leader === undefined) return;
    logger.info(`Waiting for ${counted(allocation.nodes - 1, "host")} at ${leader.address}, port ${leader.port}.`);
    await leader.gather();
    this.#hosts = Hosts.of(leader, offerOf(device), this.#workers);
    logger.info(`All ${allocation.nodes} hosts are there: ${this.#hosts.names.join(", ")}.`);
  }

  /**
   * Waits until all hosts of a program have come, where this one leads. @param own ranks of this host.
   * @throws DitrunError naming those that have not.
   */
  async gatherRanks(own: number, { logger }: Log): Promise<LedHosts | undefined> {
    this.notes.to(logger);
    const { leader, allocation } = this;
    if (leader === undefined) return undefined;
    logger.info(`Waiting for ${counted(allocation.nodes - 1, "host")} at ${leader.address}, port ${leader.port}.`);
    await leader.gather();
    const members = leader.members.toSorted((a, b) => a.node - b.node);
    return { leader, perNode: [own, ...members.map(({ workers = 1 }) => workers)] };
  }

  /** Workers of all hosts together, where they were asked for. */
  get workers(): number | undefined {
    if (this.#hosts) return this.#hosts.workers;
    return this.#workers === undefined ? undefined : this.#workers * this.allocation.nodes;
  }

  /** Devices of all hosts together, as far as this one knows. */
  devices({ count }: DeviceChoice): number {
    return this.#hosts?.devices ?? count * this.allocation.nodes;
  }

  /** Does this host's part with ditrun's own workers. @returns the leader's exit code. @throws DitrunError as `follow` does. */
  async follow(entry: string | undefined): Promise<number> {
    const { options, allocation } = this;
    const log = sessionLog(options);
    const device = await chooseDevice(options.device, log);
    return this.followWith({
      ...{ log, workers: workersAsked(options, allocation, device), offer: JSON.stringify(offerOf(device)) },
      program: (rank, start) => followingWorker(rank, start, entry),
    });
  }

  /** Does this host's part with any program. @returns the leader's exit code. @throws DitrunError as `follow` does. */
  async followWith(
    own: Pick<FollowerOptions, "log" | "workers" | "offer" | "program" | "reasonOf" | "graceMilliseconds">,
  ): Promise<number> {
    const { options, allocation, meet, command } = this;
    if (meet === undefined) throw new Error("This host is alone.");
    const { logger } = own.log;
    this.notes.to(logger);
    const interrupts = interruptSignals((sentence) => logger.info(sentence), "this host's workers and the job");
    try {
      const exitCode = await follow({
        ...{ ...commonOf(allocation, command), node: allocation.nodeRank },
        ...{ locate: locator(meet), localAddress: meet.localAddress, timeoutSeconds: options.timeout },
        ...{ signal: interrupts.signal, urgent: interrupts.urgent },
        ...own,
      });
      logger.info(`Node 0 has ended the job with exit code ${exitCode}.`);
      return exitCode;
    } finally {
      interrupts.close();
    }
  }

  /** Tells the other hosts that the job is over, and how. Never rejects. */
  async over(exitCode: number, error?: unknown): Promise<void> {
    const ending = error === undefined ? { exitCode } : { ...endingOf(error), exitCode };
    await this.leader?.over(ending).catch(() => undefined);
    await this.#close().catch(() => undefined);
  }
}

/** Sentences that wait for a log. */
class Notes {
  #waiting: { readonly level: "info" | "warn"; readonly sentence: string }[] = [];
  #logger: Log["logger"] | undefined;

  info(sentence: string): void {
    this.#tell("info", sentence);
  }

  warn(sentence: string): void {
    this.#tell("warn", sentence);
  }

  to(logger: Log["logger"]): void {
    this.#logger = logger;
    for (const { level, sentence } of this.#waiting.splice(0)) logger[level](sentence);
  }

  #tell(level: "info" | "warn", sentence: string): void {
    if (this.#logger) this.#logger[level](sentence);
    else this.#waiting.push({ level, sentence });
  }
}

function endingOf(error: unknown) {
  const failure = error instanceof DitrunError ? error : new DitrunError("ERR_INTERNAL", String(error));
  const { code, message, exitCode, rank, host, signal } = failure;
  return {
    exitCode,
    failure: {
      ...{ code, message: message.slice(0, mostSentence) },
      ...(rank !== undefined && { rank }),
      ...(host !== undefined && { host }),
      ...(signal !== undefined && { signal }),
    },
  };
}

async function meetingOf(options: JobOptions, allocation: Allocation): Promise<MeetOptions> {
  const key = await givenJobKey(options.jobKey);
  const { job, sharesHome } = allocation;
  const localAddress = options.localAddr;
  const meet = { allocation, key, localAddress, timeoutSeconds: options.timeout };
  if (key !== undefined) {
    if (allocation.leader !== undefined) return { ...meet, meeting: undefined };
    throw new DitrunError(
      "ERR_ALLOCATION",
      "A job key was given, but nothing says where node 0 is: give --master-addr.",
    );
  }
  if (sharesHome) return { ...meet, meeting: join(homeFolder(), ".cache", "ditrun", "jobs", `${fileName(job)}.json`) };
  throw new DitrunError(
    "ERR_JOB_KEY",
    "Several hosts need a common key, so that nobody else joins the job: run ditrun key once, and set DITRUN_JOB_KEY to what it prints on every host, or give --job-key FILE.",
  );
}

function whereNode0Is({ meeting, allocation: { leader, port } }: MeetOptions): string {
  return meeting === undefined ? `Node 0 is ${leader}, port ${port}.` : `Node 0 writes where it is into ${meeting}.`;
}

const fileName = (job: string) => job.replace(/[^\w.-]/g, "_").slice(0, 128);

function workersAsked({ nproc }: JobOptions, { workers }: Allocation, device: DeviceChoice): number | undefined {
  if (nproc === "gpu") return device.count;
  return nproc === "auto" || nproc === undefined ? workers : nproc;
}

function offerOf({ device, kernels, count }: DeviceChoice): Offer {
  return { device, kernels, count };
}

function commonOf({ nodes, job }: Allocation, command: string) {
  return { version: packageVersion(), nodes, job, command };
}

/** Of what the job is, without what each host has for itself. */
function digestOf(given: Iterable<readonly [string, unknown]>): string {
  const said = [...given].filter(([name]) => !ofOneHost.includes(name)).sort(([a], [b]) => (a < b ? -1 : 1));
  return createHash("sha256").update(JSON.stringify(said)).digest("hex");
}
