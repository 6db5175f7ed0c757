import type { EmitHandler } from "../engine/workers.js";
import type { Progress } from "../hub/download.js";
import { parseMessage } from "../protocol/messages.js";
import { progressSchema } from "../protocol/results.js";
import { counted } from "../text.js";
import { JobProgress, type JobShape, type JobTarget } from "../views/job-progress.js";
import { duration, WaitLine, type WaitTarget } from "../views/wait-line.js";
import type { Session } from "./session.js";
import { terminal } from "./terminal.js";

/** Where a session shows its waits. */
export function waitTarget({ log }: Session): WaitTarget {
  const live = terminal.isLive && ["info", "debug"].includes(log.level);
  return {
    info: (line) => log.logger.info(line),
    status: live ? (text) => terminal.status(text) : undefined,
    columns: () => terminal.columns,
  };
}

function jobTarget(session: Session): JobTarget {
  return {
    ...waitTarget(session),
    warn: (line) => session.log.logger.warn(line),
    event: (event) => session.events.tell(event),
    onCpu: session.device.device === "cpu",
  };
}

/** Shows how far a job is while the body runs. @param body gets the handler for what ranks emit, and the progress itself. */
export async function showProgress<T>(
  session: Session,
  shape: JobShape,
  body: (onEmit: EmitHandler, progress: JobProgress) => Promise<T>,
): Promise<T> {
  const progress = new JobProgress(jobTarget(session), shape);
  try {
    const onEmit: EmitHandler = async (_rank, name, value) => {
      if (name === "progress") progress.report(parseMessage(progressSchema, value));
    };
    return await body(onEmit, progress);
  } finally {
    progress.end();
  }
}

/** Shows a download, whose first report begins it. */
export function downloadProgress(session: Session): { show(progress: Progress): void; end(): void } {
  const wait = new WaitLine(waitTarget(session));
  let began: { readonly at: number; readonly bytes: number } | undefined;
  return {
    show({ doneBytes, totalBytes, file }) {
      session.events.tell({ event: "download", file, bytes: doneBytes, totalBytes });
      const now = performance.now();
      if (!began) {
        began = { at: now, bytes: doneBytes };
        session.log.logger.info(`Downloading ${(totalBytes / 1e9).toFixed(1)} GB.`);
        wait.begin("downloading");
      }
      // Bytes that were there before cost nothing.
      const bytesPerMs = (doneBytes - began.bytes) / Math.max(1, now - began.at);
      const percent = Math.floor((100 * doneBytes) / totalBytes);
      const rate = `${(bytesPerMs / 1e3).toFixed(0)} MB/s`;
      const leftMs = bytesPerMs > 0 ? (totalBytes - doneBytes) / bytesPerMs : 0;
      const text = `download ${percent} % of ${(totalBytes / 1e9).toFixed(1)} GB, ${rate}`;
      wait.advance({ done: doneBytes, total: totalBytes, text, leftMs });
    },
    end: () => wait.end(),
  };
}

/** From here on a CPU run is said to take long. */
const LONG_MILLISECONDS = 60_000;

/** Shows one of several runs, each of which only tells when it has ended. @param runs how many have ended, of how many. */
export async function showRun<T>(
  session: Session,
  what: string,
  { done, total }: { readonly done: number; readonly total: number },
  body: () => Promise<T>,
): Promise<T> {
  const wait = new WaitLine(waitTarget(session));
  wait.begin(`run ${done + 1} of ${total}, ${what}`);
  const began = performance.now();
  try {
    const result = await body();
    const milliseconds = performance.now() - began;
    session.events.tell({ event: "run", done: done + 1, total, what, seconds: milliseconds / 1e3 });
    const leftMs = milliseconds * (total - done - 1);
    if (done === 0 && session.device.device === "cpu" && leftMs >= LONG_MILLISECONDS) {
      session.log.logger.warn(
        `On this CPU about ${duration(Math.round(leftMs / 1e3))} are left: ${counted(total - 1, "more run")} like the first.`,
      );
    }
    return result;
  } finally {
    wait.end();
  }
}
