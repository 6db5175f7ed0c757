import { randomBytes } from "node:crypto";
import { open, rm, statfs } from "node:fs/promises";
import { join } from "node:path";
import { fileFailure } from "../../files/file-failure.js";
import { bytesInWords } from "../../text.js";
import { defineCheck, type Finding } from "../check.js";

/** What is written: a page would fit where nothing else does. */
const TRIED_BYTES = 2 ** 20;
/** Docker gives 64 MiB unless told; NCCL takes some 10 MiB for each pair of GPUs that it links through memory. */
const SCANT_BYTES = 2 ** 25;
const SCANT_BYTES_OF_GPUS = 2 ** 28;

interface Facts {
  readonly failure: string | null;
  readonly freeBytes: number;
  readonly gpus: number;
}

/** /dev/shm, by writing there: NCCL shares memory of several GPUs through it, and so do PyTorch's loaders. */
export const shm = defineCheck({
  ...{ name: "shm", section: "limits", what: "/dev/shm" },
  async look(host): Promise<Facts> {
    const folder = join(host.root, "dev/shm");
    const gpus = host.gpus().length;
    try {
      const { bavail, bsize } = await statfs(folder);
      await tryWriting(join(folder, `ditrun-doctor-${randomBytes(4).toString("hex")}`));
      return { failure: null, freeBytes: bavail * bsize, gpus };
    } catch (error) {
      return { failure: fileFailure(error), freeBytes: 0, gpus };
    }
  },
  judge({ failure, freeBytes, gpus }): Finding {
    const wayOut = "In a container, start it with --shm-size=1g; else mount a tmpfs there.";
    const several = gpus > 1;
    if (failure !== null) {
      return {
        state: several ? "problem" : "warning",
        value: `nothing can be written: ${failure}`,
        wayOut,
      };
    }
    const scant = several ? SCANT_BYTES_OF_GPUS : SCANT_BYTES;
    if (freeBytes < scant) {
      const who = several ? `NCCL may need more for ${gpus} GPUs` : "programs that share memory may need more";
      return { state: "warning", value: `${bytesInWords(freeBytes)} free, and ${who}`, wayOut };
    }
    return { state: "ok", value: `${bytesInWords(freeBytes)} free, written` };
  },
});

async function tryWriting(file: string): Promise<void> {
  try {
    const handle = await open(file, "wx", 0o600);
    try {
      await handle.writeFile(new Uint8Array(TRIED_BYTES));
    } finally {
      await handle.close();
    }
  } finally {
    await rm(file, { force: true });
  }
}
