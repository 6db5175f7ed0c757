import { constants } from "node:os";
import { type FollowerMessage, type RankSignal, rankSignals } from "../../protocol/node-messages.js";
import type { Elsewhere } from "../supervisor.js";
import { visible } from "../terminal-text.js";
import { rankList } from "../whereabouts.js";
import type { RankProcess } from "../worker-process.js";
import type { Member } from "./members.js";
import { RemoteRank } from "./remote-rank.js";

/** What a launch is, as the followers need to know it. */
export interface LaunchPlace {
  /** Names the log files. */
  readonly id: string;
  /** Ranks of each node, node 0 first; where they are fewer than the nodes, the others have none. */
  readonly perNode: readonly number[];
  /** MASTER_PORT. */
  readonly port: number;
  /** JSON for the followers' engines. */
  readonly detail: string;
}

/** How long a host may take to say that nothing of a launch is left on it. */
const END_MILLISECONDS = 4000;

/** One launch's ranks on other hosts. */
export class RemoteLaunch implements Elsewhere {
  /** In order, of each member that has some. */
  readonly #ranks = new Map<Member, readonly RemoteRank[]>();
  /** Members whose part is not over yet. */
  readonly #open = new Set<Member>();
  readonly #sentences: string[] = [];
  #pending = new Map<Member, Map<RankSignal, number[]>>();
  #wake = () => {};

  /** @param members by node, without node 0. */
  constructor(
    private readonly number: number,
    private readonly place: LaunchPlace,
    private readonly members: readonly Member[],
  ) {}

  start(mark: string): readonly RankProcess[] {
    const { perNode, id, port, detail } = this.place;
    const size = perNode.reduce((sum, each) => sum + each, 0);
    let first = perNode[0] ?? 0;
    for (const member of this.members) {
      const count = perNode[member.node] ?? 0;
      if (count === 0) continue;
      const ranks = Array.from({ length: count }, (_, index) => first + index).map(
        (rank) => new RemoteRank(rank, member.host, (signal) => this.#signal(member, rank, signal)),
      );
      this.#ranks.set(member, ranks);
      this.#open.add(member);
      member.send({ type: "start", launch: this.number, ...{ id, mark, first, count, size, port, detail } });
      first += count;
    }
    for (const member of this.#open) if (member.lost) this.lost(member);
    return [...this.#ranks.values()].flat();
  }

  async end(): Promise<readonly string[]> {
    for (const member of this.#open) member.send({ type: "end", launch: this.number });
    const patience = new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, END_MILLISECONDS);
      this.#wake = () => {
        if (this.#open.size > 0) return;
        clearTimeout(timer);
        resolve();
      };
      this.#wake();
    });
    await patience;
    for (const member of this.#open) {
      this.#sentences.push(`${member.name} did not say that nothing of the launch is left on it: look there.`);
      for (const rank of this.#of(member)) rank.ended({ kind: "lost" });
    }
    this.#open.clear();
    return this.#sentences;
  }

  /** Whether the member has ranks of this launch that are not known to have ended. */
  ranksOf(member: Member): string | undefined {
    const ranks = this.#of(member).flatMap(({ rank, running }) => (running ? [rank] : []));
    return ranks.length === 0 ? undefined : rankList(ranks).replace("R", "r");
  }

  /** Nothing is to be heard of a member any more. */
  lost(member: Member): void {
    for (const rank of this.#of(member)) rank.ended({ kind: "lost" });
    this.#open.delete(member);
    this.#wake();
  }

  /** @throws Error, of one line, where the message is not one that this member can send now. */
  handle(member: Member, message: Extract<FollowerMessage, { launch: number }>): void {
    if (message.launch !== this.number || !this.#ranks.has(member))
      throw new Error(`launch ${message.launch} is not its`);
    if (message.type === "started") this.#started(member, message.pids);
    else if (message.type === "dying") this.#rank(member, message.rank).died(performance.now() - message.ago);
    else if (message.type === "exited") this.#exited(member, message);
    else {
      if (message.stuck.length > 0) {
        this.#sentences.push(
          `Process ${message.stuck.join(", ")} on ${member.host} did not end on SIGKILL, probably inside a driver, and had to be left behind.`,
        );
      }
      this.lost(member);
    }
  }

  #started(member: Member, pids: readonly (number | null)[]): void {
    const ranks = this.#of(member);
    if (pids.length !== ranks.length) throw new Error(`it started ${pids.length} ranks, not ${ranks.length}`);
    for (const [index, rank] of ranks.entries()) rank.pid = pids[index] ?? undefined;
  }

  #exited(
    member: Member,
    { rank, exit, ago, lines, reason, place }: Extract<FollowerMessage, { type: "exited" }>,
  ): void {
    const found = this.#rank(member, rank);
    found.said(reason && visible(reason), place && visible(place));
    const at = performance.now() - ago;
    const shown = lines.map(visible);
    if (exit.kind !== "signal") {
      found.ended(exit, at, shown);
      return;
    }
    const signal = signalNamed(exit.signal);
    if (signal === undefined) throw new Error(`there is no signal ${exit.signal}`);
    found.ended({ kind: "signal", signal }, at, shown);
  }

  #rank(member: Member, rank: number): RemoteRank {
    const ranks = this.#of(member);
    const found = ranks[rank - (ranks[0]?.rank ?? 0)];
    if (!found) throw new Error(`rank ${rank} is not its`);
    return found;
  }

  #of(member: Member): readonly RemoteRank[] {
    return this.#ranks.get(member) ?? [];
  }

  /** One message for all ranks of a host that get the same signal at the same time. */
  #signal(member: Member, rank: number, wanted: NodeJS.Signals): void {
    const signal = rankSignals.find((name) => name === wanted) ?? "SIGTERM";
    if (this.#pending.size === 0) queueMicrotask(() => this.#flush());
    const ofMember = this.#pending.get(member) ?? new Map<RankSignal, number[]>();
    const ranks = ofMember.get(signal) ?? [];
    ranks.push(rank);
    this.#pending.set(member, ofMember.set(signal, ranks));
  }

  #flush(): void {
    for (const [member, signals] of this.#pending)
      for (const [signal, ranks] of signals) member.send({ type: "signal", launch: this.number, signal, ranks });
    this.#pending = new Map();
  }
}

function signalNamed(name: string): NodeJS.Signals | undefined {
  return Object.keys(constants.signals).find((each): each is NodeJS.Signals => each === name);
}
