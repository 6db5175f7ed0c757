import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { execa } from "execa";
import { expect, vi } from "vitest";

export const fixtureWorker = fileURLToPath(new URL("fixtures/worker.js", import.meta.url));
const fixtureLauncher = fileURLToPath(new URL("fixtures/ditrun.js", import.meta.url));

/** The process ids that fixture workers and their children have noted. */
export class Pids {
  readonly folder = mkdtempSync(join(tmpdir(), "ditrun-pids-"));

  all(): number[] {
    return readdirSync(this.folder).map(Number);
  }

  async started(count: number): Promise<void> {
    await vi.waitFor(() => expect(this.all()).toHaveLength(count), { timeout: 30_000, interval: 20 });
  }

  /** Their states, as proc_pid_stat(5) calls them; those that have ended have none. */
  states(): string[] {
    return this.all().flatMap((pid) => stateOf(pid) ?? []);
  }

  /** So many processes were started, and none of them runs any more. */
  async expectGone(count: number): Promise<void> {
    expect(this.all()).toHaveLength(count);
    await vi.waitFor(() => expect(this.all().filter(isRunning)).toEqual([]), { timeout: 5000, interval: 20 });
    rmSync(this.folder, { recursive: true });
  }
}

function isRunning(pid: number): boolean {
  const state = stateOf(pid);
  return state !== undefined && state !== "Z" && state !== "X";
}

function stateOf(pid: number): string | undefined {
  try {
    return readFileSync(`/proc/${pid}/stat`, "utf8").split(") ").at(-1)?.[0];
  } catch {
    return undefined;
  }
}

export interface Launch {
  /** What each rank does (fixtures/worker.js). */
  behaviour?: Record<number, string>;
  env?: Record<string, string>;
  shell?: string;
  /** Of several launchers that share their workers' noted ids. */
  pids?: Pids;
}

/**
 * Starts the command line with fixture workers. Its environment has no kernel module override and no port.
 * @param shell a line of sh that starts it as `"$@"`, where it is not started directly.
 */
export function start(args: readonly string[], { behaviour = {}, env = {}, shell, pids = new Pids() }: Launch = {}) {
  const words = ["node", fixtureLauncher, ...args];
  const [program = "", ...rest] = shell === undefined ? words : ["sh", "-c", shell, "sh", ...words];
  const process = execa(program, rest, {
    reject: false,
    stdin: "ignore",
    env: {
      DITRUN_KERNELS: "",
      MASTER_PORT: "",
      WORKER_TASKS: "commands",
      WORKER_BEHAVIOUR: JSON.stringify(behaviour),
      WORKER_PIDS: pids.folder,
      ...env,
    },
  });
  return { process, pids };
}

/** Runs `profile` on CPU fixture workers to its end. */
export async function profileWith(nproc: number, behaviour: Record<number, string>, ...args: string[]) {
  const { process, pids } = start(
    ["profile", "--device", "cpu", "--nproc", String(nproc), "--cp", String(nproc), ...args],
    {
      behaviour,
    },
  );
  const { exitCode, stderr, stdout } = await process;
  return { exitCode, stderr, stdout, pids };
}
