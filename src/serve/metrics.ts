import { Counter, Gauge, Histogram, Registry } from "prom-client";
import { packageCommit, packageVersion } from "../version.js";
import type { Made } from "./make-video.js";
import type { Queue } from "./queue.js";
import type { VideoSettings } from "./records.js";

/** Seconds, from a tiny model's video to half an hour. */
const buckets = [0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 1800];
const stepBuckets = [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20];

/** What Prometheus reads at /metrics. Labels have few values: never an id, never a prompt. */
export class Metrics {
  readonly registry = new Registry();
  readonly #requests = this.#counter("ditrun_requests_total", "Videos that have ended", ["outcome"]);
  readonly #rejected = this.#counter("ditrun_requests_rejected_total", "Videos that were refused", ["reason"]);
  readonly #restarts = this.#counter("ditrun_worker_restarts_total", "Starts of workers after a failure", ["cause"]);
  readonly #running = this.#gauge("ditrun_running", "Videos that are being made");
  readonly #queueWait = this.#histogram("ditrun_queue_wait_seconds", "From a request to the start of its video");
  readonly #request = this.#histogram("ditrun_request_seconds", "From a video's start to its end", ["width", "height"]);
  readonly #phase = this.#histogram("ditrun_phase_seconds", "Parts of a video's making", ["phase"]);
  readonly #step = this.#histogram("ditrun_step_seconds", "One sampling step", [], stepBuckets);
  readonly #load = this.#histogram("ditrun_model_load_seconds", "From the start of workers to their first request");
  readonly #memory = this.#gauge("ditrun_device_memory_peak_bytes", "Of the latest video", ["rank"]);

  constructor(queue: Queue) {
    const registers = [this.registry];
    const live = (name: string, help: string, value: () => number) =>
      new Gauge({
        ...{ name, help, registers },
        collect() {
          this.set(value());
        },
      });
    live("ditrun_queue_depth", "Videos that wait", () => queue.depth);
    live("ditrun_queue_capacity", "Videos that may wait", () => queue.capacity);
    const build = this.#gauge("ditrun_build_info", "This program", ["version", "commit"]);
    build.set({ version: packageVersion(), commit: packageCommit() ?? "" }, 1);
  }

  ended(outcome: "completed" | "failed" | "cancelled"): void {
    this.#requests.inc({ outcome });
  }

  rejected(reason: string): void {
    this.#rejected.inc({ reason });
  }

  restarted(cause: string): void {
    this.#restarts.inc({ cause });
  }

  began(waitedSeconds: number): void {
    this.#running.inc();
    this.#queueWait.observe(waitedSeconds);
  }

  stopped(): void {
    this.#running.dec();
  }

  stepped(seconds: number): void {
    this.#step.observe(seconds);
  }

  loaded(seconds: number): void {
    this.#load.observe(seconds);
  }

  made({ width, height }: VideoSettings, { measured, peakMemory }: Made): void {
    this.#request.observe({ width, height }, measured.inferenceSeconds);
    for (const [phase, seconds] of Object.entries(measured.stageSeconds)) this.#phase.observe({ phase }, seconds);
    for (const [rank, bytes] of peakMemory.entries()) this.#memory.set({ rank }, bytes);
  }

  #counter<Label extends string>(name: string, help: string, labelNames: Label[]) {
    return new Counter({ name, help, labelNames, registers: [this.registry] });
  }

  #gauge<Label extends string>(name: string, help: string, labelNames: Label[] = []) {
    return new Gauge({ name, help, labelNames, registers: [this.registry] });
  }

  #histogram<Label extends string>(name: string, help: string, labelNames: Label[] = [], seconds = buckets) {
    return new Histogram({ name, help, labelNames, buckets: seconds, registers: [this.registry] });
  }
}
