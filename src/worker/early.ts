import { wakeWithParentsDeath } from "./parent-death.js";
import { ignoreWarnings } from "./scheduler-warnings.js";
import { endWithLauncher } from "./watchdog.js";

let prepared = false;

/**
 * What a worker does before all else, once, since a launcher may be killed and a worker stopped at any time: it ties its life to
 * the launcher's, and takes no notice of what is said to everybody.
 */
export function prepareProcess(): void {
  if (prepared) return;
  prepared = true;
  ignoreWarnings();
  // A file-size limit then fails the write that met it instead of ending the process.
  process.on("SIGXFSZ", () => undefined);
  if (endWithLauncher() && !wakeWithParentsDeath()) {
    process.stderr.write("If this worker is stopped it will outlive a launcher that is killed: prctl was refused.\n");
  }
}
