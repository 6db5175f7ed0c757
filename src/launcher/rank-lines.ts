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
  /** Parts of lines: those that have one are kept together, of all ranks, in filtered.STREAM.log. */
  readonly filters?: Partial<Readonly<Record<StreamName, readonly string[] | undefined>>>;
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
  /** Files that several ranks write, once they are begun. */
  readonly #common = new Set<string>();

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
    const filtered = this.#filtered(job, rank);
    return {
      files: Object.fromEntries(Object.entries(opened).map(([stream, { path }]) => [stream, path])),
      lines: (stream, lines) => {
        opened[stream]?.file.write(lines.map((line) => `${line}\n`).join(""));
        filtered.get(stream)?.write(lines);
        if (!this.#goes(rank, stream).shown) return undefined;
        const terminal = this.terminal(this.output[stream]);
        terminal.write(lines.map((line) => this.#shown(rank, stream, line)).join(""));
        return terminal.room;
      },
      close: () => {
        for (const stream of streamNames) opened[stream]?.file.close();
        for (const { close } of filtered.values()) close();
      },
    };
  }

  #goes(rank: number, stream: StreamName) {
    const { shown, kept } = this.output.goes?.(rank, stream) ?? { shown: true, kept: true };
    return { shown, kept: kept && this.folder !== undefined };
  }

  /** What keeps the lines that are looked for. Each rank appends to one file, a whole line at once. */
  #filtered(job: string, rank: number) {
    const found = new Map<
      StreamName,
      { readonly write: (lines: readonly string[]) => void; readonly close: () => void }
    >();
    for (const stream of streamNames) {
      const words = this.output.filters?.[stream];
      if (words === undefined || this.folder === undefined) continue;
      const opened = this.#open(job, `filtered.${stream}.log`, true);
      if (opened === undefined) continue;
      const { file } = opened;
      found.set(stream, {
        write: (lines) => {
          const own = lines.filter((line) => words.some((word) => line.includes(word)));
          if (own.length > 0) file.write(own.map((line) => `[rank ${rank}] ${line}\n`).join(""));
        },
        close: () => file.close(),
      });
    }
    return found;
  }

  /** @param common of several ranks: the first one begins it anew. */
  #open(job: string, name: string, common = false): { path: string; file: LogFile } | undefined {
    const folder = join(this.folder ?? "", job);
    const path = join(folder, name);
    const mode = this.#common.has(path) ? "append" : "anew";
    try {
      makeFolder(folder);
      const file = new LogFile(path, mode, this.complain);
      if (common) this.#common.add(path);
      return { path, file };
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
