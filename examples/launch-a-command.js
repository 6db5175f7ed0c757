// Starts a program on four ranks, shows what they say, and tells which rank failed first.
//   node examples/launch-a-command.js
//   node examples/launch-a-command.js python3 train.py --epochs 3
import { DitrunError, launch } from "ditrun";

const hello = `
  const { RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT } = process.env;
  console.log("rank " + RANK + " of " + WORLD_SIZE + " would meet the others at " + MASTER_ADDR + ":" + MASTER_PORT);`;
const [program = process.execPath, ...rest] = process.argv.slice(2);
const command = [program, ...(process.argv.length > 2 ? rest : ["-e", hello])];

// Ctrl-C ends all ranks.
const ending = new AbortController();
process.once("SIGINT", () => ending.abort(new Error("Ended by Ctrl-C.")));

try {
  const { exits } = await launch(
    { command, nproc: 4 },
    {
      signal: ending.signal,
      onEvent(event) {
        if (event.kind === "output")
          console[event.stream === "stdout" ? "log" : "error"](`[${event.rank}] ${event.line}`);
      },
    },
  );
  console.log(`All ${exits.length} ranks have ended well.`);
} catch (error) {
  console.error(error instanceof DitrunError ? `${error.code}, rank ${error.rank}: ${error.message}` : error.message);
  process.exitCode = error instanceof DitrunError ? error.exitCode : 1;
}
