import { DitrunError } from "../../failure.js";
import type { Exchange, Phase, TraceEvent, TraceSpan } from "../../protocol/results.js";
import { type Handle, type LaunchedKernel, memoryKinds, type OnStream } from "./abi.js";
import { Arena } from "./arena.js";
import { type DeviceInfo, type KernelCalls, Kernels, noKernels } from "./kernels.js";
import { Reader } from "./reader.js";
import { Region } from "./region.js";
import { StagingBlocks } from "./staging-blocks.js";
import { type DType, type Tensor, tensor, tensorBytes } from "./tensor.js";
import { noWork, type Work } from "./work.js";

export type StreamName = "compute" | "copy" | "aside";

interface Interval {
  name: string;
  phase: Phase;
  stream: StreamName;
  work: Work;
  layer: string | undefined;
  exchange: Exchange | undefined;
  /** Before and after it was queued, of process.hrtime. */
  queued: readonly [bigint, bigint];
  arenaBytes: number;
  start: Handle;
  end: Handle;
}

type SpanInterval = Pick<Interval, "name" | "start" | "end"> & Pick<TraceSpan, "kind">;

/** A forward with a clock around every kernel. */
export interface Recording {
  readonly events: TraceEvent[];
  /** What `span` names, on the compute stream. */
  readonly spans: TraceSpan[];
  /** When it began, in microseconds of the host's CLOCK_MONOTONIC, which all processes of a host share. */
  readonly beganMicroseconds: number;
}

/** Looks at both clocks at once; the one with the least between its two host times counts. */
const CLOCK_LOOKS = 5;

/** One launch of a kernel. Neither function is called while measuring. */
export interface Launch<Name extends LaunchedKernel> {
  /** What of a forward's time the launch is counted as. */
  readonly phase: Phase;
  /** What it costs; asked for only where launches are recorded. */
  readonly work: () => Work;
  readonly args: () => OnStream[Name];
  /** Where it goes: with the other computing, unless said. */
  readonly stream?: StreamName | undefined;
}

/**
 * One GPU (or the CPU module) as the model code sees it: its streams, an arena for a forward's tensors, and `launch`,
 * through which every kernel goes, so that a forward can be measured for memory (nothing runs), captured, or recorded.
 */
export class Device {
  readonly info: DeviceInfo;
  /** Of the forwards at hand: work with memory of its own brings an arena of its own. */
  arena = new Arena();
  readonly streams: Record<StreamName, Handle>;
  /** While true, nothing is launched and addresses mean nothing: the arena and the peer heap measure what they will need. */
  measuring = false;
  #recording: { readonly intervals: Interval[]; readonly spans: SpanInterval[] } | undefined;
  /** The layer that launches are of, while one is recorded. */
  #layer: string | undefined;
  /** What launches exchange, while one is recorded. */
  #exchange: Exchange | undefined;
  /** Where kernels go that name no stream. */
  #computing: StreamName = "compute";
  /** What lives as long as the device. */
  readonly #own = new Region();
  /** Where persistent tensors go now. */
  #region = this.#own;
  /** Bytes of persistent tensors that a rehearsal has asked for; undefined outside of one. */
  #rehearsed: number | undefined;

  /** Of weights' files. */
  readonly reader: Reader;
  readonly #staging: StagingBlocks;

  private constructor(
    private readonly realKernels: Kernels,
    workers: number,
  ) {
    const kernels = realKernels;
    this.info = kernels.deviceInfo();
    this.#noKernels = noKernels({ module: kernels.module, deviceInfo: this.info });
    this.streams = {
      compute: kernels.create("streamCreate", 0),
      copy: kernels.create("streamCreate", 1),
      aside: kernels.create("streamCreate", 0),
    };
    this.reader = new Reader(kernels, this.streams.compute, workers, (error) => this.#staging.abandon(error));
    this.#staging = new StagingBlocks(kernels, this.streams.compute);
  }

  readonly #noKernels: KernelCalls;

  /** The kernel module; in a rehearsal, nothing. */
  get kernels(): KernelCalls {
    return this.#rehearsed === undefined ? this.realKernels : this.#noKernels;
  }

  /** Devices of this host that its workers share. */
  get devices(): number {
    return this.kernels.create("deviceCount");
  }

  /**
   * Opens this rank's device; workers beyond the number of devices share them, dealt round.
   * @param workers of this host, which share its cores. @throws DitrunError when it cannot be opened.
   */
  static open(kernelFile: string, localRank: number, workers = 1): Device {
    const kernels = new Kernels(kernelFile);
    const devices = kernels.create("deviceCount");
    if (devices === 0) throw new DitrunError("ERR_NO_DEVICE", `The kernel module ${kernelFile} sees no device.`);
    kernels.call("deviceOpen", localRank % devices);
    return new Device(kernels, workers);
  }

  /** Queues one kernel on a stream; nothing while measuring, when addresses mean nothing. */
  launch<Name extends LaunchedKernel>(name: Name, { phase, work, args, stream = this.#computing }: Launch<Name>): void {
    if (this.measuring) return;
    const queue = this.streams[stream];
    const recording = this.#recording;
    if (!recording) {
      this.kernels.queue(name, args(), queue);
      return;
    }
    const values = args();
    const start = this.#timestamp(queue);
    const before = process.hrtime.bigint();
    this.kernels.queue(name, values, queue);
    const queued = [before, process.hrtime.bigint()] as const;
    const end = this.#timestamp(queue);
    recording.intervals.push({ name, phase, stream, work: work(), ...this.#surroundings, queued, start, end });
  }

  get #surroundings() {
    return { layer: this.#layer, exchange: this.#exchange, arenaBytes: this.arena.used };
  }

  /** Runs the body, whose launches a recording is to know as parts of this exchange with other ranks. */
  exchanging<T>(exchange: () => Exchange, body: () => T): T {
    if (!this.#recording) return body();
    const before = this.#exchange;
    this.#exchange = exchange();
    try {
      return body();
    } finally {
      this.#exchange = before;
    }
  }

  /** Runs the body, whose launches a recording is to know as those of this layer. */
  named<T>(layer: string, body: () => T): T {
    if (!this.#recording) return body();
    const before = this.#layer;
    this.#layer = layer;
    try {
      return body();
    } finally {
      this.#layer = before;
    }
  }

  /** As named; the recording also tells when the whole of it began and ended on the compute stream. */
  span<T>(layer: string, body: () => T): T {
    return this.spanOf("block", layer, () => this.named(layer, body));
  }

  /** Runs the body; a recording tells when the whole of it began and ended on the compute stream. */
  spanOf<T>(kind: TraceSpan["kind"], name: string, body: () => T): T {
    const recording = this.#recording;
    if (!recording || this.measuring) return body();
    const start = this.#timestamp(this.streams.compute);
    const value = body();
    recording.spans.push({ name, kind, start, end: this.#timestamp(this.streams.compute) });
    return value;
  }

  #timestamp(queue: Handle): Handle {
    const event = this.kernels.create("eventCreate");
    this.kernels.call("eventRecord", event, queue);
    return event;
  }

  /** A tensor of the forward, from the arena: it lives until the innermost scope ends. */
  allocate(dtype: DType, shape: readonly number[]): Tensor {
    return tensor(this.arena.allocate(tensorBytes(dtype, shape)), dtype, shape);
  }

  /** A matrix of the forward in this dtype; e4m3 comes with its row scales. */
  allocateMatrix(dtype: DType, shape: readonly [number, number]): Tensor {
    const matrix = this.allocate(dtype, shape);
    return dtype === "e4m3" ? { ...matrix, rowScale: this.allocate("fp32", [shape[0]]) } : matrix;
  }

  /**
   * A tensor that weights pass through, which is given back once all that uses it is queued on the compute stream. Waits while there
   * are many; a rehearsal does not count them. @throws what kept others from being given back.
   */
  async stage(dtype: DType, shape: readonly number[]): Promise<Tensor> {
    return this.rehearsing ? tensor(0, dtype, shape) : this.#staging.take(dtype, shape);
  }

  /** Gives back what `stage` gave. */
  unstage(staged: Tensor): void {
    this.#staging.give(staged);
  }

  /** A tensor that lives as long as the region at hand, by default as long as the device: weights, constants, buffers. */
  allocatePersistent(dtype: DType, shape: readonly number[], kind: keyof typeof memoryKinds = "device"): Tensor {
    const bytes = tensorBytes(dtype, shape);
    const again = this.#rehearsed === undefined ? this.#region.again(bytes) : undefined;
    if (again !== undefined) return tensor(again, dtype, shape);
    const address = this.kernels.create("malloc", bytes, memoryKinds[kind]);
    if (this.#rehearsed !== undefined) this.#rehearsed += bytes;
    else this.#region.add(address, bytes, kind);
    return tensor(address, dtype, shape);
  }

  /** Runs the body with its persistent tensors in a region. One body at a time: what it awaits must not allocate for another. */
  async within<T>(region: Region, body: () => Promise<T>): Promise<T> {
    const before = this.#region;
    this.#region = region;
    try {
      return await body();
    } finally {
      this.#region = before;
    }
  }

  /** Frees a region's tensors; nothing may be queued that still uses them. */
  free(region: Region): void {
    for (const address of region.empty()) this.kernels.call("free", address);
  }

  /** Runs the body once for its memory only: the arena and the peer heap learn what it needs. */
  measure(body: () => void): void {
    const before = this.measuring;
    this.measuring = true;
    try {
      this.arena.scope(body);
    } finally {
      this.measuring = before;
    }
  }

  /**
   * Runs the body, which loads models and measures their forwards, without memory, kernels or the bytes of weights; what it
   * makes is of no use afterwards. The arena and the peer heap keep what they learn.
   * @returns bytes of the persistent tensors that it would have allocated.
   */
  async rehearse(body: () => Promise<void>): Promise<number> {
    [this.#rehearsed, this.measuring] = [0, true];
    try {
      await body();
      return this.#rehearsed;
    } finally {
      [this.#rehearsed, this.measuring] = [undefined, false];
    }
  }

  /** Takes from the device what the measuring pass found. */
  backArena(): void {
    const bytes = Math.max(this.arena.peak, 1);
    this.arena.back(this.allocatePersistent("e4m3", [bytes]).address, bytes);
  }

  /** Waits, off the event loop, until what is read has come and both streams have done all their work. @throws what reading failed of. */
  async synchronize(): Promise<void> {
    await this.reader.settle();
    await this.kernels.callBlocking("streamSynchronize", this.streams.compute);
    await this.kernels.callBlocking("streamSynchronize", this.streams.copy);
    this.#staging.free();
  }

  /** A point in a stream's work, for `waitFor`. Only the last 64 may be waited for. */
  mark(stream: StreamName): Handle {
    if (this.measuring) return 0;
    // A wait refers to the record before it, so a few events serve every mark of a forward in turn.
    const index = this.#nextMark++ % 64;
    const event = this.#marks[index] ?? this.kernels.create("eventCreate");
    this.#marks[index] = event;
    this.kernels.call("eventRecord", event, this.streams[stream]);
    return event;
  }

  /** Holds a stream until the marked point of another has been reached. The compute stream waits only for messages: a recording counts that as communication. */
  waitFor(stream: StreamName, mark: Handle): void {
    const recording = stream === "compute" && !this.measuring ? this.#recording : undefined;
    const start = recording && this.#timestamp(this.streams[stream]);
    const before = process.hrtime.bigint();
    this.#hold(stream, mark);
    if (!recording || start === undefined) return;
    const queued = [before, process.hrtime.bigint()] as const;
    const end = this.#timestamp(this.streams[stream]);
    recording.intervals.push({
      ...{ name: "wait", phase: "communication", stream, work: noWork },
      ...{ ...this.#surroundings, queued, start, end },
    });
  }

  #hold(stream: StreamName, mark: Handle): void {
    if (!this.measuring) this.kernels.call("streamWaitEvent", this.streams[stream], mark);
  }

  /**
   * Queues two bodies of compute work that need nothing of each other, so that they may run at the same time: the second on a
   * stream of its own, in memory of its own. What the compute stream is given next waits for both. Neither may use peers.
   */
  beside(first: () => void, second: () => void): void {
    const begun = this.mark("compute");
    this.arena.beside(first, () => {
      this.#hold("aside", begun);
      this.#computing = "aside";
      try {
        second();
      } finally {
        this.#computing = "compute";
      }
    });
    this.#hold("compute", this.mark("aside"));
  }

  readonly #marks: Handle[] = [];
  #nextMark = 0;

  /** Captures what the body queues on the compute stream (and on streams joined to it) as one graph. */
  capture(body: () => void): Handle {
    this.kernels.call("captureBegin", this.streams.compute);
    let failure: unknown;
    try {
      body();
    } catch (error) {
      failure = error;
    }
    const graph = this.kernels.create("captureEnd", this.streams.compute);
    if (failure !== undefined) throw failure;
    return graph;
  }

  /** Runs the body with an event before and after every kernel. Times are in microseconds since the first. */
  async record(body: () => void): Promise<Recording> {
    const recording = { intervals: [] as Interval[], spans: [] as SpanInterval[] };
    const { intervals, spans } = recording;
    const origin = this.#timestamp(this.streams.compute);
    this.#recording = recording;
    try {
      body();
    } finally {
      this.#recording = undefined;
    }
    await this.synchronize();
    const times = ({ start, end }: Pick<Interval, "start" | "end">) => ({
      startMicroseconds: this.elapsed(origin, start) * 1e3,
      durationMicroseconds: this.elapsed(start, end) * 1e3,
    });
    const beganMicroseconds = this.#hostTimeOf(origin);
    const onHost = ([from, to]: Interval["queued"]) => ({
      startMicroseconds: Number(from) / 1e3 - beganMicroseconds,
      durationMicroseconds: Number(to - from) / 1e3,
    });
    const events = intervals.map(({ name, phase, stream, work, layer, exchange, queued, arenaBytes, ...own }) => ({
      ...{ name, phase, stream, ...times(own), queued: onHost(queued), arenaBytes },
      ...(layer !== undefined && { layer }),
      ...(exchange !== undefined && { exchange }),
      ...work,
    }));
    const named = spans.map(({ name, kind, ...own }) => ({ name, kind, ...times(own) }));
    for (const event of [origin, ...[...intervals, ...spans].flatMap(({ start, end }) => [start, end])]) {
      this.kernels.call("eventDestroy", event);
    }
    return { events, spans: named, beganMicroseconds };
  }

  /** When a completed event was, in microseconds of the host's clock; the device must be idle. */
  #hostTimeOf(event: Handle): number {
    let best = { between: Number.POSITIVE_INFINITY, began: 0 };
    for (let look = 0; look < CLOCK_LOOKS; look++) {
      const before = process.hrtime.bigint();
      const now = this.#timestamp(this.streams.compute);
      this.kernels.call("streamSynchronize", this.streams.compute);
      const after = process.hrtime.bigint();
      const between = Number(after - before) / 1e3;
      const middle = Number(before) / 1e3 + between / 2;
      if (between < best.between) best = { between, began: middle - this.elapsed(event, now) * 1e3 };
      this.kernels.call("eventDestroy", now);
    }
    return best.began;
  }

  /** Milliseconds between two completed events. */
  elapsed(start: Handle, end: Handle): number {
    return this.kernels.create("eventElapsed", start, end);
  }

  /** Queues the body between two events and returns a function that, once the device is synchronized, gives the milliseconds. */
  time(body: () => void): () => number {
    const start = this.#timestamp(this.streams.compute);
    body();
    const end = this.#timestamp(this.streams.compute);
    return () => {
      const milliseconds = this.elapsed(start, end);
      this.kernels.call("eventDestroy", start);
      this.kernels.call("eventDestroy", end);
      return milliseconds;
    };
  }

  /** Host bytes into a tensor. */
  async upload(destination: Tensor, source: Uint8Array, stream: StreamName = "compute"): Promise<void> {
    await this.kernels.callBlocking("upload", destination.address, source, source.byteLength, this.streams[stream]);
  }

  /** A contiguous tensor's bytes, once the stream has done what is queued on it. */
  async download(source: Tensor, stream: StreamName = "compute"): Promise<Uint8Array> {
    const bytes = new Uint8Array(tensorBytes(source.dtype, source.shape));
    await this.kernels.callBlocking("download", bytes, source.address, bytes.byteLength, this.streams[stream]);
    return bytes;
  }

  /** Zeros in a tensor that outlives a forward, while one is measured too. */
  clear(out: Tensor): void {
    this.kernels.call("fillZero", out.address, tensorBytes(out.dtype, out.shape), this.streams.compute);
  }

  /** Whether a rehearsal runs: nothing that is made is to be kept. */
  get rehearsing(): boolean {
    return this.#rehearsed !== undefined;
  }

  /** Frees everything but regions, which are freed before; the device must be idle. */
  close(): void {
    this.reader.release();
    // After a failure work may still be queued: it must not run in memory that is given back.
    for (const stream of Object.values(this.streams)) this.kernels.call("streamDestroy", stream);
    this.#staging.free();
    this.free(this.#own);
    for (const event of this.#marks.splice(0)) this.kernels.call("eventDestroy", event);
    this.kernels.call("deviceClose");
  }
}
