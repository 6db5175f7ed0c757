// Commands of a build: each in a process group of its own, which ends when the build is told to end or npm is gone.
import { spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import { constants } from "node:os";

const GRACE_MILLISECONDS = 3000;
const PARENT_CHECK_MILLISECONDS = 300;

/** The process groups that run now, by their leader's id. */
const groups = new Set();
let ending = false;

function signalGroups(signal) {
  for (const pid of groups) {
    try {
      process.kill(-pid, signal);
    } catch {
      groups.delete(pid); // it has just ended
    }
  }
}

function end(signal) {
  if (ending) return;
  ending = true;
  const exitCode = 128 + constants.signals[signal];
  console.error(`ditrun: ${signal}: the build is ended.`);
  signalGroups("SIGTERM");
  const started = Date.now();
  const wait = setInterval(() => {
    signalGroups(0);
    if (groups.size > 0 && Date.now() - started < GRACE_MILLISECONDS) return;
    clearInterval(wait);
    signalGroups("SIGKILL");
    process.exit(exitCode);
  }, 50);
}

for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) process.on(signal, () => end(signal));
// A killed npm sends no signal; the build would go on without anybody to look at it.
if (process.env.npm_lifecycle_event !== undefined) {
  const ancestors = npmAncestors();
  const gone = () => String(npmAncestors()) !== String(ancestors);
  setInterval(() => gone() && end("SIGHUP"), PARENT_CHECK_MILLISECONDS).unref();
}

/** The processes between npm and this one, npm itself included: it may have started a shell, and that this. */
function npmAncestors() {
  try {
    if (readFileSync(`/proc/${process.ppid}/comm`, "utf8").trim() !== "sh") return [process.ppid];
    return [process.ppid, readFileSync(`/proc/${process.ppid}/stat`, "utf8").split(") ").at(-1).split(" ")[1]];
  } catch {
    return [process.ppid]; // it ends just now
  }
}

/**
 * Runs a command in a folder.
 * @param show takes its output; else that is passed on as it comes.
 * @returns { code, signal, error, firstError }: `error` when it could not be started, `firstError` the first line of its output that
 * speaks of an error.
 */
export function run(command, args, folder, show) {
  return new Promise((resolve) => {
    const child = spawn(command, args, { cwd: folder, detached: true, stdio: ["ignore", "pipe", "pipe"] });
    if (child.pid !== undefined) groups.add(child.pid);
    let firstError;
    for (const [stream, shown] of [
      [child.stdout, process.stdout],
      [child.stderr, process.stderr],
    ]) {
      let rest = "";
      stream.setEncoding("utf8").on("data", (text) => {
        if (show) show(text);
        else shown.write(text);
        const lines = (rest + text).split("\n");
        rest = lines.pop().slice(-1000);
        firstError ??= lines.find((line) => /\b(error|fatal|failed)\b(?!\.)/i.test(line))?.trim();
      });
    }
    const done = (result) => {
      groups.delete(child.pid);
      if (!ending) resolve({ ...result, firstError });
    };
    child.on("error", (error) => done({ error }));
    child.on("close", (code, signal) => done({ code, signal }));
  });
}
