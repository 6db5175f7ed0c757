import { createRequire } from "node:module";
import type { Logger as PinoLogger } from "pino";
import { type LogLevel, logLevels } from "./log-levels.js";

type Level = Exclude<LogLevel, "silent">;

/** Takes a sentence, and more fields for its record. */
type Say = (sentence: string, fields?: object) => void;

export type Logger = Readonly<Record<Level, Say>>;

/** Somebody who gets the records of a level and of those before it, each a line of JSON. */
export interface Listener {
  readonly level: LogLevel;
  readonly write: (line: string) => void;
}

interface Said {
  readonly level: Level;
  readonly fields: object;
  readonly sentence: string;
  /** By Date.now(). */
  readonly at: number;
}

/** For so long at most what is said waits for the start of a program. */
const MOST_WAITING_MILLISECONDS = 100;

/** Tells each listener what its level lets through. pino is loaded when there is something to tell. */
export class Records {
  readonly logger: Logger;
  readonly #listeners: readonly Listener[];
  #pino: PinoLogger | undefined;
  #waiting: Said[] | undefined;
  #timer: NodeJS.Timeout | undefined;
  #at = 0;

  /**
   * @param waits holds back what is no error or warning until `settle`, or a tenth of a second: loading pino would delay the start of a
   * program as much as all else does.
   */
  constructor(listeners: readonly Listener[], waits = false) {
    this.#listeners = listeners.filter(({ level }) => level !== "silent");
    if (waits) this.#waiting = [];
    const say =
      (level: Level): Say =>
      (sentence, fields = {}) =>
        this.#take({ level, fields, sentence, at: Date.now() });
    this.logger = { error: say("error"), warn: say("warn"), info: say("info"), debug: say("debug") };
  }

  /** Tells what waits. From now on nothing does. */
  settle(): void {
    clearTimeout(this.#timer);
    const waiting = this.#waiting ?? [];
    this.#waiting = undefined;
    for (const said of waiting) this.#tell(said);
  }

  #take(said: Said): void {
    const rank = logLevels.indexOf(said.level);
    if (this.#listeners.every(({ level }) => logLevels.indexOf(level) < rank)) return;
    if (this.#waiting === undefined) {
      this.#tell(said);
      return;
    }
    this.#waiting.push(said);
    if (said.level === "error" || said.level === "warn") this.settle();
    else this.#timer ??= setTimeout(() => this.settle(), MOST_WAITING_MILLISECONDS);
  }

  #tell({ level, fields, sentence, at }: Said): void {
    this.#at = at;
    this.#pino ??= this.#load();
    this.#pino[level](fields, sentence);
  }

  #load(): PinoLogger {
    const { pino, multistream } = loadPino();
    const streams = this.#listeners.flatMap(({ level, write }) =>
      level === "silent" ? [] : [{ level, stream: { write } }],
    );
    const timestamp = () => `,"time":${this.#at}`;
    return pino({ level: "debug", base: { pid: process.pid }, timestamp }, multistream(streams));
  }
}

function loadPino(): typeof import("pino") {
  return createRequire(import.meta.url)("pino");
}

/** The sentence of a record, and its level. A schema library would cost the start of a program a sixth of a second. */
export function sentenceOf(line: string): { sentence: string; level: Level } {
  const record: unknown = JSON.parse(line);
  if (typeof record !== "object" || record === null || !("msg" in record) || !("level" in record))
    throw new Error(`A record of the log has no sentence: ${line}`);
  const name = loadPino().levels.labels[Number(record.level)];
  return {
    sentence: String(record.msg),
    level: name === "error" || name === "warn" || name === "debug" ? name : "info",
  };
}
