import { z } from "zod";
import { hostVariables, type Place, passiveWaiting, rankVariables } from "../launcher/cluster/rank-variables.js";
import type { Start } from "../launcher/nodes/follower.js";
import type { Program } from "../launcher/worker-process.js";
import { workerEntry } from "../paths.js";
import { parseMessage } from "../protocol/messages.js";
import { rendezvousVariables } from "../protocol/variables.js";

const key = z.string().length(40);

/** What the workers of a launch have in common: the keys of their rendezvous (Z85), its deadline and how much they say. */
const workerDetailSchema = z.strictObject({
  serverKey: key,
  publicKey: key,
  secretKey: key,
  timeoutSeconds: z.number().positive(),
  logLevel: z.string().max(16),
});
export type WorkerDetail = z.infer<typeof workerDetailSchema>;

/**
 * A worker's process: torchrun's variables, ditrun's keys, and thread counts that let all workers of a host share its cores.
 * @param host this host's address where a launch has several.
 */
export function workerProgram(
  place: Place,
  { serverKey, publicKey, secretKey, timeoutSeconds, logLevel }: WorkerDetail,
  host: string | undefined,
  entry = workerEntry,
): Program {
  const environment = {
    ...rankVariables(place),
    ...passiveWaiting(),
    ...hostVariables(host),
    [rendezvousVariables.serverKey]: serverKey,
    [rendezvousVariables.publicKey]: publicKey,
    [rendezvousVariables.secretKey]: secretKey,
    [rendezvousVariables.timeoutSeconds]: String(timeoutSeconds),
    [rendezvousVariables.logLevel]: logLevel,
  };
  return { command: [process.execPath, entry], environment, stdin: "open" };
}

/** The same where another host leads. @throws Error where its message cannot be understood. */
export function followingWorker(rank: number, start: Start, entry?: string): Program {
  const { size, first, count, address, ownAddress, port } = start;
  const place = { rank, size, localRank: rank - first, localSize: count, address, port };
  const detail = parseMessage(workerDetailSchema, new TextEncoder().encode(start.detail));
  return workerProgram(place, detail, ownAddress, entry);
}
