import { z } from "zod";
import { parseMessage } from "../../protocol/messages.js";
import type { LaunchDetail, ProgramPlace } from "../rank-program.js";
import type { Start } from "./follower.js";

const detailSchema: z.ZodType<LaunchDetail> = z.strictObject({
  id: z.string().max(255),
  nodes: z.int().min(1).max(65_536),
  restarts: z.int().min(0),
  maxRestarts: z.int().min(0),
});

/** The place of a rank of any program where another host leads. @throws Error where its message cannot be understood. */
export function followingPlace(
  rank: number,
  { size, first, count, address, ownAddress, port, node, detail }: Start,
): ProgramPlace {
  const told = parseMessage(detailSchema, new TextEncoder().encode(detail));
  const place = { rank, size, localRank: rank - first, localSize: count, address, port };
  return { ...place, ...told, node, host: ownAddress };
}
