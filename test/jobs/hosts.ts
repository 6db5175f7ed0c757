import { createServer } from "node:net";
import { makeJobKey } from "../../src/launcher/nodes/job-key.js";
import { Pids, start } from "./launch.js";

/** A port of the loopback that was free just now. */
export async function freePort(): Promise<string> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const address = server.address();
  await new Promise((resolve) => server.close(resolve));
  if (address === null || typeof address === "string") throw new Error("There is no port.");
  return String(address.port);
}

export interface SimulatedHosts {
  readonly nodes: number;
  /** Of each host. */
  readonly nproc: number;
  readonly behaviour?: Record<number, string>;
  /** Further options of all hosts. */
  readonly args?: readonly string[];
  readonly env?: Record<string, string>;
}

/** Launchers of several hosts on this one, each with fixture workers. */
export async function startHosts({ nodes, nproc, behaviour = {}, args = [], env = {} }: SimulatedHosts) {
  const port = await freePort();
  const pids = new Pids();
  const common = ["profile", "--device", "cpu", "--nproc", String(nproc), "--cp", String(nodes * nproc)];
  const where = ["--nnodes", String(nodes), "--master-addr", "127.0.0.1", "--master-port", port];
  const key = makeJobKey();
  const started: { kill(signal: "SIGKILL"): boolean }[] = [];
  const launch = (node: number, more: readonly string[] = [], own: Record<string, string> = {}) => {
    const { process } = start([...common, ...where, "--node-rank", String(node), ...args, ...more], {
      ...{ behaviour, pids },
      env: { DITRUN_JOB_KEY: key, ...env, ...own },
    });
    started.push(process);
    return process;
  };
  /** Leaves nothing behind, whatever a test has found. */
  const end = () => {
    for (const each of started) each.kill("SIGKILL");
  };
  return { launch, pids, end };
}
