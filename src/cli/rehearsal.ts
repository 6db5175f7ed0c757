import { z } from "zod";
import { checkDocument } from "../files/documents.js";
import { meshSize } from "../plan/schema.js";
import type { RehearseTask } from "../protocol/job.js";
import { type MemoryNeed, rehearseRankSchema } from "../protocol/results.js";
import { bytesInWords } from "../text.js";
import type { Session } from "./session.js";

/** More would keep a small machine busy for minutes, only to look. */
const MOST_REHEARSING = 64;

/**
 * What memory a task needs on its fullest rank: real workers go through it with no weights loaded.
 * @returns undefined, with a warning, where they would be too many for a look.
 * @throws DitrunError as the run would: for memory that is not there, or a file of the checkpoint that cannot be read.
 */
export async function rehearse(session: Session, of: RehearseTask["of"]): Promise<MemoryNeed | undefined> {
  const workers = meshSize(of.plan.mesh);
  if (workers > MOST_REHEARSING) {
    session.log.logger.warn(
      `Memory and files were not checked: a dry run starts ${MOST_REHEARSING} workers at most, and these are ${workers}.`,
    );
    return undefined;
  }
  const task: RehearseTask = { kind: "rehearse", model: of.model, plan: of.plan, of };
  const ranks = z.array(rehearseRankSchema);
  const found = checkDocument("The workers' results", await session.run(task), ranks, "ERR_INTERNAL");
  return found
    .map(({ memory }) => memory)
    .reduce((most, memory) => (memory.neededBytes > most.neededBytes ? memory : most));
}

/** For people: the peak of the fullest rank, of what it has. */
export function memorySentence({ neededBytes, availableBytes, encoderFirst, hostBytes }: MemoryNeed): string {
  const how = encoderFirst ? ", one model at a time: the text encoder goes before the others come" : "";
  const waits =
    hostBytes > 0
      ? ` The second transformer waits in ${bytesInWords(hostBytes)} of the host's memory for each rank.`
      : "";
  return `Each rank needs at most ${bytesInWords(neededBytes)} of device memory for all models at once, and has ${bytesInWords(availableBytes)}${how}.${waits}`;
}
