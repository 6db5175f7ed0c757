// The entry of a build: tells a Node.js that is too old so, and leaves the rest to build-parts.js.
// Nothing here is newer than Node 12.
import { nodeIsTooOld } from "../bin/node-version.js";

const sentence = nodeIsTooOld(process.versions.node);
if (sentence === undefined) {
  import("./build-parts.js");
} else {
  process.stderr.write(`ditrun: ${sentence}\n`);
  process.exit(3);
}
