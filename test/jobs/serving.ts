import { join } from "node:path";
import { execa } from "execa";
import { type Client, createClient } from "../../src/client/client.js";
import { packageRoot } from "../../src/paths.js";

export interface Serving {
  /** Of the server itself, also where another program has started it. */
  readonly pid: number;
  readonly address: string;
  readonly client: Client;
  /** What it has said so far. */
  said(): string;
  kill(signal: NodeJS.Signals): void;
  /** @returns its exit code, undefined where a signal ended it. */
  ended(): Promise<number | undefined>;
}

interface Options {
  /** What stands before its line, as `unshare`. */
  readonly under?: readonly string[];
  readonly options?: readonly string[];
  readonly environment?: Readonly<Record<string, string>>;
}

/** Starts a server of the small model on this machine, and waits until it is ready. @param data its folder. */
export async function serveTiny(
  data: string,
  { under = [], options = [], environment }: Options = {},
): Promise<Serving> {
  const own = ["serve", "--model", "tiny", "--device", "cpu", "--port", "0", "--data-dir", data, "--frames", "5"];
  const [program = "", ...words] = [...under, process.execPath, join(packageRoot, "bin/ditrun.js"), ...own, ...options];
  const server = execa(program, words, {
    ...{ reject: false, stdin: "ignore", stdout: "ignore" },
    env: { DITRUN_KERNELS: "", MASTER_PORT: "", DITRUN_API_KEY: "", ...environment },
  });
  let said = "";
  const address = await new Promise<string>((resolve, reject) => {
    server.stderr.on("data", (chunk: Buffer) => {
      said += chunk.toString();
      const [, found] = /Ready: (http:\/\/[^/\s]+)/.exec(said) ?? [];
      if (found !== undefined) resolve(found);
    });
    void server.then(() => reject(new Error(said)));
  });
  return {
    ...{ pid: server.pid ?? 0, address, client: createClient({ url: address, maxRetries: 0 }) },
    said: () => said,
    kill: (signal) => void server.kill(signal),
    ended: async () => (await server).exitCode,
  };
}
