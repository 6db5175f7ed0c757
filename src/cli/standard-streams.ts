import { exitCodes } from "../failure.js";
import { fileFailure } from "../files/file-failure.js";

/** How long a reader of stderr that has stopped reading is waited for, once there is nothing more to do. */
const PATIENCE_MILLISECONDS = 3000;
const LOOK_MILLISECONDS = 100;

/**
 * Says in a sentence what keeps stdout or stderr from being written, a full disk for instance, and has the process end with
 * exit code 2 then. Whoever read the output may go (`ditrun … | head`): there is nobody left to tell.
 */
export function watchStandardStreams(): void {
  for (const name of ["stdout", "stderr"] as const) {
    process[name].on("error", (error) => {
      if ("code" in error && error.code === "EPIPE") return;
      process.exitCode ||= exitCodes.usage;
      if (name === "stdout") process.stderr.write(`ditrun: stdout cannot be written: ${fileFailure(error)}.\n`);
    });
  }
}

/**
 * To be called when all is done: the process ends by itself as soon as its output has been read, and without what is left on stderr
 * where nobody reads it. What is on stdout was asked for, and is waited for as long as it takes.
 */
export function endWithUnreadStderr(patience = PATIENCE_MILLISECONDS, exit: () => void = () => process.exit()): void {
  let least = Number.POSITIVE_INFINITY;
  let since = performance.now();
  const timer = setInterval(() => {
    const unread = process.stderr.writableLength;
    if (unread < least || process.stdout.writableLength > 0) {
      least = unread;
      since = performance.now();
    } else if (performance.now() - since > patience) {
      clearInterval(timer);
      exit();
    }
  }, LOOK_MILLISECONDS).unref();
}
