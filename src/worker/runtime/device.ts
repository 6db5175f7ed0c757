import { DitrunError } from "../../failure.js";
import type { Exchange, Phase, TraceSpan } from "../../protocol/results.js";
import { type Handle, type LaunchedKernel, memoryKinds, type OnStream } from "./abi.js";
import { Arena } from "./arena.js";
import { type DeviceInfo, type KernelCalls, Kernels, noKernels } from "./kernels.js";
import { Reader } from "./reader.js";
import { Recorder, type Recording } from "./recorder.js";
import { Region } from "./region.js";
import { StagingBlocks } from "./staging-blocks.js";
import { type StreamName, timestamp } from "./streams.js";
import { type DType, type Tensor, tensor, tensorBytes } from "./tensor.js";
import { noWork, type Work } from "./work.js";

export type { Recording, StreamName };

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
  #recorder: Recorder | undefined;
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
    const recorder = this.#recorder;
    if (!recorder) {
      this.kernels.queue(name, args(), queue);
      return;
    }
    const values = args();
    const launched = { name, phase, stream, work: work(), arenaBytes: this.arena.used };
    recorder.launch(launched, () => this.kernels.queue(name, values, queue));
  }

  /** Runs the body, whose launches a recording is to know as parts of this exchange with other ranks. */
  exchanging<T>(exchange: () => Exchange, body: () => T): T {
    return this.#recorder ? this.#recorder.exchanging(exchange(), body) : body();
  }

  /** Runs the body, whose launches a recording is to know as those of this layer. */
  named<T>(layer: string, body: () => T): T {
    return this.#recorder ? this.#recorder.named(layer, body) : body();
  }

  /** As named; the recording also tells when the whole of it began and ended on the compute stream. */
  span<T>(layer: string, body: () => T): T {
    return this.spanOf("block", layer, () => this.named(layer, body));
  }

  /** Runs the body; a recording tells when the whole of it began and ended on the compute stream. */
  spanOf<T>(kind: TraceSpan["kind"], name: string, body: () => T): T {
    return this.#recorder && !this.measuring ? this.#recorder.span(kind, name, body) : body();
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
    if (this.measuring) return;
    const hold = () => this.#hold(stream, mark);
    const waited = { name: "wait", phase: "communication", stream, work: noWork, arenaBytes: this.arena.used } as const;
    if (this.#recorder && stream === "compute") this.#recorder.launch(waited, hold);
    else hold();
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
    const recorder = new Recorder(this.kernels, this.streams);
    this.#recorder = recorder;
    try {
      body();
    } finally {
      this.#recorder = undefined;
    }
    await this.synchronize();
    return recorder.finish();
  }

  /** Milliseconds between two completed events. */
  elapsed(start: Handle, end: Handle): number {
    return this.kernels.create("eventElapsed", start, end);
  }

  /** Queues the body between two events and returns a function that, once the device is synchronized, gives the milliseconds. */
  time(body: () => void): () => number {
    const start = timestamp(this.kernels, this.streams.compute);
    body();
    const end = timestamp(this.kernels, this.streams.compute);
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
