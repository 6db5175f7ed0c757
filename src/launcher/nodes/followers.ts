import type { FollowerMessage } from "../../protocol/node-messages.js";
import { counted } from "../../text.js";
import { visible } from "../terminal-text.js";
import { missingFrom } from "../whereabouts.js";
import type { Member } from "./members.js";

/** What every launcher of a job must have in common with the leader. */
export interface Common {
  readonly version: string;
  readonly nodes: number;
  readonly job: string;
  /** Of what the job is. */
  readonly command: string;
}

/** A launcher that asks for a place in the job. */
export type Asked = Extract<FollowerMessage, { type: "register" }>;

export interface Follower extends Member {
  readonly route: string;
  /** Node 0's address, as this one reaches it. */
  readonly reached: string;
  /** When it was last heard of, by performance.now(). */
  heard: number;
  lost: boolean;
  /** It has heard that the job is over. */
  gone: boolean;
}

/** Which launchers have a place in the job, and why others have none. Each registration and message costs the same, however many there are. */
export class Followers {
  readonly #byRoute = new Map<string, Follower>();
  readonly #byNode = new Map<number, Follower>();
  /** No node below is free. */
  #lowest = 1;

  /** @param host name of node 0's. */
  constructor(
    private readonly common: Common,
    private readonly host: string,
  ) {}

  get size(): number {
    return this.#byRoute.size;
  }

  /** In the order in which they came. */
  get all(): Iterable<Follower> {
    return this.#byRoute.values();
  }

  /** By node, from node 1 on. */
  get inOrder(): readonly Follower[] {
    return [...this.#byNode.values()].sort((a, b) => a.node - b.node);
  }

  at(route: string): Follower | undefined {
    return this.#byRoute.get(route);
  }

  /** All hosts that there are and that there are not. */
  get gaps(): { readonly missing: readonly number[]; readonly here: string } {
    const here = [{ node: 0, host: this.host }, ...this.inOrder];
    const missing = missingFrom(
      this.common.nodes,
      here.map(({ node }) => node),
    );
    return { missing, here: here.map(({ node, host }) => `node ${node} (${visible(host)})`).join(", ") };
  }

  /**
   * Gives a launcher its place. @param full nobody else is taken. @param send takes messages to it.
   * @returns the follower, or a sentence that says why it has none.
   */
  admit(route: string, asked: Asked, full: boolean, send: Follower["send"]): Follower | string {
    const node = asked.node ?? this.#free();
    const why = this.#whyNot(asked, node, full);
    if (why !== undefined) return why;
    const host = visible(asked.host);
    const follower: Follower = {
      ...{ node, host, name: `Host ${host} (node ${node})`, workers: asked.workers, offer: asked.offer },
      ...{ route, send, reached: asked.reached, heard: performance.now(), lost: false, gone: false },
    };
    this.#byRoute.set(route, follower);
    this.#byNode.set(node, follower);
    return follower;
  }

  /** Its place is free again. */
  forget({ route, node }: Follower): void {
    this.#byRoute.delete(route);
    this.#byNode.delete(node);
    this.#lowest = Math.min(this.#lowest, node);
  }

  /** The lowest number that nobody has. */
  #free(): number {
    while (this.#byNode.has(this.#lowest)) this.#lowest++;
    return this.#lowest;
  }

  #whyNot(asked: Asked, node: number, full: boolean): string | undefined {
    const { version, nodes, job, command } = this.common;
    const name = asked.node === undefined ? "The launcher" : `Node ${asked.node}`;
    if (asked.version !== version)
      return `${name} has ditrun ${visible(asked.version)}, but node 0 has ${version}: install one on all hosts.`;
    if (asked.job !== job)
      return `${name} is of another job or attempt, ${visible(asked.job)}; this is ${job}: end the old one.`;
    if (asked.nodes !== nodes)
      return `${name} was told of ${counted(asked.nodes, "host")}, node 0 of ${nodes}: give all the same --nnodes.`;
    if (asked.command !== command)
      return `${name} was given another command or other options than node 0: give all hosts the same.`;
    const other = this.#byNode.get(node);
    if (node === 0 || other)
      return `There is a node ${node} already, on ${other?.host ?? this.host}: give each host a --node-rank of its own.`;
    if (full || (asked.node === undefined && node >= nodes)) return `All ${nodes} hosts of this job are there already.`;
    return node < nodes ? undefined : `Node ${node} is none of ${nodes}: hosts are counted from 0.`;
  }
}
