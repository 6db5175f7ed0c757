// What is shown of a cmake that runs: a short line every tenth of the work, and all that it said where it fails.
import { run } from "./run.js";

const STEP_PERCENT = 10;
/** Of what a failed command said, enough to have the first error in it. */
const LINES_KEPT = 200;

/**
 * Runs cmake in a folder.
 * @param name what it makes, for the lines of progress; undefined shows none.
 * @returns what run() does.
 */
export async function cmake(args, folder, name) {
  const kept = [];
  let rest = "";
  let shown = 0;
  const take = (text) => {
    const lines = (rest + text).split("\n");
    rest = lines.pop();
    for (const line of lines) {
      const percent = Number(/^\[ *(\d+)%\]/.exec(line)?.[1] ?? Number.NaN);
      if (Number.isNaN(percent)) kept.push(line);
      if (name === undefined || !(percent >= shown + STEP_PERCENT)) continue;
      shown = percent - (percent % STEP_PERCENT);
      console.log(`ditrun: ${name}: ${shown} %`);
    }
  };
  const result = await run("cmake", args, folder, take);
  if (result.code !== 0 && result.error === undefined) {
    if (rest !== "") kept.push(rest);
    console.error(kept.slice(-LINES_KEPT).join("\n"));
  }
  return result;
}
