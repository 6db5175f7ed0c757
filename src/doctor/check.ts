import { messageOf } from "../failure.js";
import type { Host } from "./host.js";
import type { CheckName, Section } from "./names.js";

export const states = ["ok", "warning", "problem"] as const;
/** ok: as it should be. warning: ditrun works, and less well than it could. problem: something that is needed is missing. */
export type State = (typeof states)[number];

/** What a check comes to. */
export interface Finding {
  readonly state: State;
  /** Half a sentence with the values in it. */
  readonly value: string;
  /** What to do, a sentence; a value that is a whole message may hold it already. */
  readonly wayOut?: string | undefined;
  /** Lines below it, as a matrix of rates. */
  readonly more?: readonly string[];
}

/** What the list of checks knows of one. */
interface Words {
  /** As --only names it. */
  readonly name: CheckName;
  readonly section: Section;
  /** What stands before its value on the page, at most 14 characters. */
  readonly what: string;
  /** It takes seconds, so it runs with --bench or by its name alone. */
  readonly bench?: true;
  /** Seconds until it counts as a problem that there is no answer; 10 unless given. */
  readonly deadline?: number;
}

export interface Check extends Words {
  /** @returns the finding, and the facts that it is of. Never throws. */
  run(host: Host): Promise<Finding & { readonly facts: object | null }>;
}

const USUAL_DEADLINE = 10;

/**
 * A check: `look` tries this host, `judge` makes a finding of what it saw.
 * What `look` throws, and an answer that does not come in time, are problems too.
 */
export function defineCheck<Facts extends object>(
  check: Words & { look(host: Host): Facts | Promise<Facts>; judge(facts: Facts): Finding },
): Check & { judge(facts: Facts): Finding } {
  const { look, judge, ...words } = check;
  return {
    ...words,
    judge,
    async run(host) {
      const deadline = words.deadline ?? USUAL_DEADLINE;
      try {
        const facts = await inTime(async () => look(host), deadline);
        return { ...judge(facts), facts };
      } catch (error) {
        return { state: "problem", value: messageOf(error), facts: null };
      }
    },
  };
}

/** @throws Error where the answer does not come within so many seconds. */
async function inTime<T>(look: () => Promise<T>, seconds: number): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`there was no answer within ${seconds} s.`)), seconds * 1e3);
  });
  try {
    return await Promise.race([look(), late]);
  } finally {
    clearTimeout(timer);
  }
}
