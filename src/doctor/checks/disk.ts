import { hubCache } from "../../hub/hub-cache.js";
import { bytesInWords } from "../../text.js";
import { defineCheck } from "../check.js";
import { tryFolder } from "../try-folder.js";

const SCANT_BYTES = 2 ** 31;

/** What is free where checkpoints go. */
export const disk = defineCheck({
  ...{ name: "disk", section: "files", what: "Disk" },
  async look({ environment }) {
    const { folder, failure, freeBytes } = await tryFolder(folderOf(() => hubCache(environment)));
    return { folder, freeBytes: failure === null ? freeBytes : null };
  },
  judge({ freeBytes }) {
    if (freeBytes === null) return { state: "ok", value: "not told: the hub's cache cannot be written" };
    const value = `${bytesInWords(freeBytes)} free where the hub's cache is`;
    if (freeBytes >= SCANT_BYTES) return { state: "ok", value };
    return {
      ...{ state: "warning", value },
      wayOut: "Checkpoints need more (docs/memory.md): remove files, or name another disk with HF_HOME.",
    };
  },
});

/** Without a home folder the check of the cache tells. */
function folderOf(ask: () => string): string {
  try {
    return ask();
  } catch {
    return "/";
  }
}
