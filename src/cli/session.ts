import { randomBytes } from "node:crypto";
import { chooseDevice, type DeviceChoice } from "../engine/choose-device.js";
import { type EmitHandler, runJob, Workers, type WorkersOptions } from "../engine/workers.js";
import type { Log } from "../launcher/logs.js";
import { planTitle } from "../plan/names.js";
import { meshSize, type Plan } from "../plan/schema.js";
import type { Task } from "../protocol/job.js";
import { counted } from "../text.js";
import { type Page, type Paint, pageOf, paint, prose } from "../views/page.js";
import type { Context } from "./command.js";
import type { Envelope } from "./envelope.js";
import type { Events } from "./events.js";
import { interruptSignals, unlessEnding } from "./interrupts.js";
import { type Environment, environmentOf } from "./machine.js";
import { type LaunchOptions, portNumber } from "./options/launch.js";
import type { OutputOptions } from "./options/output.js";
import { sessionLog } from "./session-log.js";
import { terminal } from "./terminal.js";

/** What workers are started for: a kind of task, and the model or what else it is about. */
export interface Undertaking {
  readonly kind: Task["kind"];
  readonly subject: string;
}

/** What every session is opened by. */
export type SessionOptions = LaunchOptions & OutputOptions;

/** The log and the device that the options ask for, once all hosts are there. @throws DitrunError as Session.open does. */
export async function surroundings(options: SessionOptions, { hosts }: Context) {
  const log = sessionLog(options);
  const device = await chooseDevice(options.device, log);
  await hosts?.gather(device, log);
  return { log, device };
}

/** What a command works with: the shared options made real, and the ways to run jobs and to say what came out. */
export class Session {
  /** Sentences that wait for the first job or table. */
  readonly #notes: string[] = [];
  #environment: Promise<Environment> | undefined;

  protected constructor(
    readonly options: SessionOptions,
    readonly device: DeviceChoice,
    readonly log: Log,
    private readonly context: Context,
  ) {}

  /** @throws DitrunError when the log folder, the device or the kernel module cannot be had. */
  static async open(options: SessionOptions, context: Context): Promise<Session> {
    const { log, device } = await surroundings(options, context);
    return new Session(options, device, log, context);
  }

  /** Whoever wants progress as JSON. */
  get events(): Events {
    return this.context.events;
  }

  /** Tells something once the first job starts or the first table is shown: not before a mistake of the same line. */
  tellLater(sentence: string): void {
    this.#notes.push(sentence);
  }

  #tellNotes(): void {
    for (const note of this.#notes.splice(0)) this.log.logger.info(note);
  }

  /** Runs a task on as many workers as its plan needs. @returns results by rank. @throws DitrunError as runJob does. */
  async run(task: Task, onEmit?: EmitHandler): Promise<unknown[]> {
    const subject = "model" in task ? task.model.name : task.kind === "links" ? "messages" : "this device";
    return this.#launch(task.plan, { kind: task.kind, subject }, ({ settings, ...options }) =>
      runJob({ ...options, job: { ...settings, task }, onEmit }),
    );
  }

  /**
   * Starts the workers of a plan, has `body` run tasks on them one after the other, and ends them, whatever comes of it.
   * @param what is done, for the log. @param body is told by the signal that the user ends the workers.
   * @throws DitrunError as Workers does, and what `body` throws.
   */
  async withWorkers<T>(
    plan: Plan,
    what: Undertaking,
    body: (workers: Workers, signal: AbortSignal) => Promise<T>,
  ): Promise<T> {
    return this.#launch(plan, what, async (options) => {
      const workers = await Workers.start({ ...options, settings: { ...options.settings, stays: true } });
      let result: T;
      try {
        result = await body(workers, options.signal);
      } catch (error) {
        // What a worker does on its way out matters less than why.
        await workers.close().catch(() => undefined);
        throw error;
      }
      await workers.close();
      return result;
    });
  }

  /** Has `body` start workers; signals are theirs meanwhile. */
  async #launch<T>(
    plan: Plan,
    { kind, subject }: Undertaking,
    body: (options: WorkersOptions & { readonly signal: AbortSignal }) => Promise<T>,
  ): Promise<T> {
    await unlessEnding();
    this.#tellNotes();
    const { device, kernels, count } = this.device;
    const nproc = meshSize(plan.mesh);
    const { timeout, masterPort } = this.options;
    const { MASTER_PORT } = process.env;
    const workers = `${counted(nproc, "worker")} on ${device}`;
    this.log.logger.info(`${kind}: ${subject}, ${planTitle(plan)}, ${workers}.`);
    const job = { kind, subject, plan: plan.name ?? "", workers: nproc, deviceKind: device };
    this.events.tell({ event: "job", ...job });
    if (device === "cuda" && nproc > this.devices) {
      const gpus = count === 1 ? "the one GPU" : `${count} GPUs`;
      this.log.logger.info(`${nproc} workers share ${gpus}: each takes the GPU of its local rank modulo ${count}.`);
    }
    const id = `${kind}-${randomBytes(4).toString("hex")}`;
    const what = nproc === 1 ? "the worker" : workers;
    const interrupts = interruptSignals((sentence) => this.log.logger.info(sentence), what);
    try {
      const { signal, urgent } = interrupts;
      return await body({
        ...{ signal, urgent },
        settings: { id, device, kernels, timeoutSeconds: timeout },
        nproc,
        hosts: this.context.hosts?.hosts,
        log: this.log,
        port: masterPort ?? (MASTER_PORT ? portNumber(MASTER_PORT, "MASTER_PORT") : undefined) ?? 0,
        entry: this.context.entry,
      });
    } finally {
      interrupts.close();
    }
  }

  /** Workers that were asked for, on all hosts together. */
  get workers(): number | undefined {
    const { nproc } = this.options;
    if (this.context.hosts) return this.context.hosts.workers;
    return nproc === "gpu" ? this.device.count : nproc === "auto" ? undefined : nproc;
  }

  /** GPUs of all hosts; one for each host on the CPU. */
  get devices(): number {
    return this.context.hosts?.devices(this.device) ?? this.device.count;
  }

  /** Hosts of the job. */
  get hosts(): number {
    return Math.max(1, Math.round(this.devices / this.device.count));
  }

  /** Whether the job has several hosts. */
  get onSeveralHosts(): boolean {
    return this.context.hosts?.several ?? false;
  }

  /** What text for people is laid out for: stdout, or stderr where stdout or a file has JSON. */
  get page(): Page {
    return this.#onStdout ? pageOf(process.stdout, process.env) : terminal.page;
  }

  get #onStdout(): boolean {
    return this.options.json === undefined && this.options.events !== "-";
  }

  /** Text for people; none with --quiet. */
  print(text: string): void {
    this.#tellNotes();
    if (this.options.quiet) return;
    terminal.status(undefined);
    if (this.#onStdout) process.stdout.write(`${text}\n`);
    else terminal.write(`${text}\n`);
  }

  /** What the numbers come to. */
  printVerdict(sentence: string, colour?: Paint): void {
    const { page } = this;
    const word = paint(page, colour === undefined ? "bold" : ["bold", colour], "Verdict:");
    this.print(prose(page, `${word} ${sentence}`));
  }

  /** What results depend on, beside the command line. */
  environment(): Promise<Environment> {
    this.#environment ??= environmentOf(this.device.kernels);
    return this.#environment;
  }

  /** By what, where and when a report is made. */
  async made(): Promise<Envelope & { readonly environment: Environment }> {
    return { ...this.context.document.envelope, environment: await this.environment() };
  }

  /** What else all documents of such a session have. */
  protected get common(): object {
    return {};
  }

  /** The JSON document of a command, and the result of its events, if they were asked for. @throws DitrunError when its file cannot be written. */
  async emit(document: object): Promise<void> {
    if (this.options.json === undefined && this.options.events === undefined) return;
    const { device, count } = this.device;
    const { command } = this.context;
    const kind = { command, deviceKind: device, deviceName: null, deviceCount: count };
    const common = { ...kind, environment: await this.environment(), ...this.common };
    await this.context.document.write({ ...common, ...document });
  }
}
