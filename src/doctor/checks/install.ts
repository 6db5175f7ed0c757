import { existsSync } from "node:fs";
import { relative } from "node:path";
import { examineEntry, packageRoot, probeEntry, reaperEntry, workerEntry } from "../../paths.js";
import { packageCommit, packageVersion } from "../../version.js";
import { defineCheck } from "../check.js";
import { shortPath } from "../words.js";

/** The version of ditrun, and whether all of its programs are there. */
export const install = defineCheck({
  ...{ name: "ditrun", section: "install", what: "ditrun" },
  look() {
    const programs = [workerEntry, probeEntry, examineEntry, reaperEntry];
    const missing = programs.filter((file) => !existsSync(file)).map((file) => relative(packageRoot, file));
    return { version: packageVersion(), commit: packageCommit(), folder: packageRoot, missing };
  },
  judge({ version, commit, folder, missing }) {
    if (missing.length > 0) {
      return {
        ...{ state: "problem", value: `${missing.join(", ")} of ${shortPath(folder)} is missing` },
        wayOut: commit === null ? "Install ditrun again." : `cd ${folder} && npm run build -- --typescript`,
      };
    }
    const at = commit === null ? "" : ` at commit ${commit.slice(0, 7)}`;
    return { state: "ok", value: `${version}${at}, ${shortPath(folder)}` };
  },
});
