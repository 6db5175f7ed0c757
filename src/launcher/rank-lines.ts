import { hostname } from "node:os";
import { join } from "node:path";
import type { Writable } from "node:stream";
import { fileFailure } from "../files/file-failure.js";
import { makeFolder } from "../files/folder.js";
import { BoundedStream } from "./bounded-stream.js";
import { LogFile } from "./log-file.js";
import { coloured, visible } from "./terminal-text.js";

export const streamNames = ["stdout", "stderr"] as const;
export type StreamName = (typeof streamNames)[number];

/** A stream to people. */
export type Shown = Pick<Writable, "write" | "writableLength">;

/** Where the lines of ranks go, and how. */
export interface RankOutput {
  /** What takes the ranks' stdout and stderr. */
  readonly stdout: Shown;
  readonly stderr: Shown;
  /** `[rank 3] line`, or a JSON object a line. */
  readonly format: "text" | "json";
  /** Named in the prefix where several hosts take part. */
  readonly host?: string | undefined;
  /** Lets colours through. Other control characters are written out. */
  readonly colours?: boolean;
  /** Whether a stream of a rank is shown, and whether it is kept in a file. */
  readonly goes?: (rank: number, stream: StreamName) => { readonly shown: boolean; readonly kept: boolean };
}

export interface WorkerLog {
  /** Takes lines as they came, in order. @returns a promise where the next ones should wait for it. */
  lines(stream: StreamName, lines: readonly string[]): Promise<void> | undefined;
  close(): void;
  /** Where the lines are kept, by stream. */
  readonly files: Partial<Readonly<Record<StreamName, string>>>;
}

/** Shows and keeps what ranks write: always whole lines, whoever else writes. */
export class RankLines {
  readonly #terminals = new Map<Shown, BoundedStream>();

  /** @param folder for files; none are kept without one. @param complain gets a sentence about a file that cannot be written. */
  constructor(
    private readonly output: RankOutput,
    private readonly folder: string | undefined,
    private readonly complain: (sentence: string) => void,
  ) {}

  /** The one writer of a stream, so that it drops and counts what nobody reads in one place. */
  terminal(stream: Shown): BoundedStream {
    const found = this.#terminals.get(stream) ?? new BoundedStream(stream);
    this.#terminals.set(stream, found);
    return found;
  }

  /** Opens the files of one rank of one job. */
  worker(job: string, rank: number): WorkerLog {
    const opened: Partial<Record<StreamName, { path: string; file: LogFile }>> = {};
    for (const stream of streamNames) {
      const file = this.#goes(rank, stream).kept ? this.#open(job, `rank-${rank}.${stream}.log`) : undefined;
      if (file) opened[stream] = file;
    }
    return {
      files: Object.fromEntries(Object.entries(opened).map(([stream, { path }]) => [stream, path])),
      lines: (stream, lines) => {
        opened[stream]?.file.write(lines.map((line) => `${line}\n`).join(""));
        if (!this.#goes(rank, stream).shown) return undefined;
        const terminal = this.terminal(this.output[stream]);
        terminal.write(lines.map((line) => this.#shown(rank, stream, line)).join(""));
        return terminal.room;
      },
      close: () => {
        for (const stream of streamNames) opened[stream]?.file.close();
      },
    };
  }

  #goes(rank: number, stream: StreamName) {
    const { shown, kept } = this.output.goes?.(rank, stream) ?? { shown: true, kept: true };
    return { shown, kept: kept && this.folder !== undefined };
  }

  #open(job: string, name: string): { path: string; file: LogFile } | undefined {
    const folder = join(this.folder ?? "", job);
    const path = join(folder, name);
    try {
      makeFolder(folder);
      return { path, file: new LogFile(path, "anew", this.complain) };
    } catch (error) {
      this.complain(`${path} cannot be written: ${fileFailure(error)}.`);
      return undefined;
    }
  }

  #shown(rank: number, stream: StreamName, line: string): string {
    const { format, host, colours } = this.output;
    if (format === "json") {
      const record = { time: new Date().toISOString(), rank, host: host ?? hostname(), stream, line };
      return `${JSON.stringify(record)}\n`;
    }
    const place = host === undefined ? `${rank}` : `${rank} ${host}`;
    return `[rank ${place}] ${colours ? coloured(line) : visible(line)}\n`;
  }
}
