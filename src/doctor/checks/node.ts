import { readFileSync } from "node:fs";
import { join } from "node:path";
import { z } from "zod";
import { packageRoot } from "../../paths.js";
import { defineCheck } from "../check.js";
import { shortPath } from "../words.js";

const manifestSchema = z.object({ engines: z.object({ node: z.string().regex(/^>=\d+\.\d+$/) }) });

/** The Node.js that this runs on, and what package.json asks for. */
export const node = defineCheck({
  ...{ name: "node", section: "install", what: "Node.js" },
  look() {
    const manifest = manifestSchema.parse(JSON.parse(readFileSync(join(packageRoot, "package.json"), "utf8")));
    const { version, platform, arch, execPath } = process;
    return { version: version.slice(1), platform, arch, program: execPath, needed: manifest.engines.node.slice(2) };
  },
  judge({ version, platform, arch, program, needed }) {
    const [major = 0, minor = 0] = version.split(".").map(Number);
    const [leastMajor = 0, leastMinor = 0] = needed.split(".").map(Number);
    if (major < leastMajor || (major === leastMajor && minor < leastMinor)) {
      return {
        ...{ state: "problem", value: `${version}, and ditrun needs ${needed} or newer` },
        wayOut: "Get a newer one from nodejs.org, or by a version manager.",
      };
    }
    if (platform !== "linux") {
      return {
        ...{ state: "problem", value: `${version} on ${platform}, and ditrun needs Linux` },
        wayOut: "Run it in a container or a virtual machine with Linux.",
      };
    }
    return { state: "ok", value: `${version} for ${arch}, ${shortPath(program)}` };
  },
});
