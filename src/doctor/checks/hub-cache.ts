import { DitrunError } from "../../failure.js";
import { hubCache, isOffline } from "../../hub/hub-cache.js";
import { defineCheck, type Finding } from "../check.js";
import { type TriedFolder, tryFolder } from "../try-folder.js";
import { shortPath } from "../words.js";

interface Facts extends Partial<TriedFolder> {
  /** Why nobody knows where it is. */
  readonly unknown: string | null;
  readonly offline: boolean;
}

/** Where checkpoints are downloaded to, by making a folder there. */
export const hubCacheCheck = defineCheck({
  ...{ name: "hub-cache", section: "files", what: "Hub cache" },
  async look({ environment }): Promise<Facts> {
    const offline = isOffline(environment);
    try {
      return { unknown: null, offline, ...(await tryFolder(hubCache(environment))) };
    } catch (error) {
      if (error instanceof DitrunError) return { unknown: error.message, offline };
      throw error;
    }
  },
  judge({ unknown, offline, folder = "", there = false, failure = null }): Finding {
    // The message holds the way out.
    if (unknown !== null) return { state: "warning", value: unknown };
    const shown = shortPath(folder);
    if (failure !== null && offline) return { state: "ok", value: `${shown}, for reading: HF_HUB_OFFLINE is set` };
    if (failure !== null) {
      return {
        ...{ state: "warning", value: `${shown} cannot be written, so nothing can be downloaded: ${failure}` },
        wayOut: "Name another folder with HF_HUB_CACHE, or take a checkpoint that is there, with --ckpt-dir.",
      };
    }
    return { state: "ok", value: `${shown}, ${there ? "written" : "not there yet, and can be made"}` };
  },
});
