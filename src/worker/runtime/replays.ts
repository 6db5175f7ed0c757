import type { Handle } from "./abi.js";
import type { Device } from "./device.js";
import { freeGraph, launchGraph } from "./graph.js";

/** Pieces of work that are queued again and again, by name: each a graph from its second time on. */
export class Replays {
  readonly #graphs = new Map<string, Handle | "not yet">();

  /** @param wanted false: work is never made a graph. */
  constructor(
    private readonly device: Device,
    private readonly wanted: boolean,
  ) {}

  /**
   * @param queue queues the work of this name, the same each time.
   * @returns what queues it this time. A capture is over before, so that it can be timed.
   */
  of(name: string, queue: () => void): () => void {
    const known = this.#graphs.get(name);
    // The first time also loads kernels and picks GEMM algorithms, none of which a capture may do.
    if (!this.wanted || known === undefined) {
      this.#graphs.set(name, "not yet");
      return queue;
    }
    const graph = known === "not yet" ? this.device.capture(queue) : known;
    this.#graphs.set(name, graph);
    return () => launchGraph(this.device, graph);
  }

  /** Frees the graphs; the device must have done what is queued. */
  close(): void {
    for (const graph of this.#graphs.values()) {
      if (graph !== "not yet") freeGraph(this.device, graph);
    }
    this.#graphs.clear();
  }
}
