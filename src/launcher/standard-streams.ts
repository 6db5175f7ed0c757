import { fileFailure } from "../formats/file-failure.js";
import { exitCodes } from "../protocol/failure.js";

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
