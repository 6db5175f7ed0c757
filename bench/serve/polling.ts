import { readFileSync } from "node:fs";
import { Agent, get } from "node:http";
import { setTimeout as sleep } from "node:timers/promises";

export interface Polling {
  readonly clients: number;
  /** Each client asks so often. */
  readonly everyMs: number;
  readonly seconds: number;
}

/** What answering costs a process. */
export interface PollingCost {
  readonly requests: number;
  /** CPU time of the process a request. */
  readonly microseconds: number;
  /** Of one core, at the rate that was asked. */
  readonly percent: number;
}

/**
 * Has clients poll, each over a connection of its own, and measures the CPU time of the server.
 * @param pid the server's. @param urlOf what a client asks for. @throws Error where an answer is not 200 or 304.
 */
export async function pollingCost(
  pid: number,
  urlOf: (client: number) => string,
  headers: Readonly<Record<string, string>>,
  { clients, everyMs, seconds }: Polling,
): Promise<PollingCost> {
  const agents = Array.from({ length: clients }, () => new Agent({ keepAlive: true, maxSockets: 1 }));
  let requests = 0;
  let wrong = "";
  const over = new AbortController();
  const one = async (agent: Agent, client: number) => {
    await sleep((everyMs * client) / clients);
    while (!over.signal.aborted) {
      const next = performance.now() + everyMs;
      const status = await ask(urlOf(client), agent, headers);
      if (status !== 200 && status !== 304) wrong = `${urlOf(client)} answered ${status}.`;
      requests += 1;
      await sleep(Math.max(0, next - performance.now()));
    }
  };
  const all = agents.map(one);
  // Connections are made and code is compiled first.
  await sleep(3000);
  const [before, from, started] = [cpuSeconds(pid), requests, performance.now()];
  await sleep(1000 * seconds);
  const used = cpuSeconds(pid) - before;
  const counted = requests - from;
  const wall = (performance.now() - started) / 1000;
  over.abort();
  await Promise.all(all);
  for (const agent of agents) agent.destroy();
  if (wrong !== "") throw new Error(wrong);
  return { requests: counted, microseconds: (1e6 * used) / counted, percent: (100 * used) / wall };
}

function ask(url: string, agent: Agent, headers: Readonly<Record<string, string>>): Promise<number> {
  return new Promise((resolve, reject) => {
    get(url, { agent, headers: { ...headers } }, (response) => {
      response.once("end", () => resolve(response.statusCode ?? 0)).resume();
    }).once("error", reject);
  });
}

/** User and system time of a process and its threads so far (proc_pid_stat(5)); ticks are 1/100 s on Linux. */
export function cpuSeconds(pid: number): number {
  const text = readFileSync(`/proc/${pid}/stat`, "utf8");
  const fields = text.slice(text.lastIndexOf(") ") + 2).split(" ");
  return (Number(fields[11]) + Number(fields[12])) / 100;
}
