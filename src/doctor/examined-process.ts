import { createInterface } from "node:readline";
import { execa } from "execa";
import { z } from "zod";
import { examineEntry } from "../paths.js";
import type { Environment } from "./environment.js";

/** What a question came to: the answer, or a sentence on why there is none. */
export type Answer<T> = { readonly value: T } | { readonly failure: string };

const errorSchema = z.object({ error: z.string() });

/** A process that tries a kernel module (src/worker/examine/). Whatever the module does to it, questions get an answer. */
export class ExaminedProcess {
  readonly #child;
  readonly #lines: AsyncIterator<string>;
  #over: string | undefined;

  /** @param deadline milliseconds that all questions together may take. */
  constructor(
    private readonly file: string,
    index: number,
    environment: Environment,
    deadline: number,
  ) {
    this.#child = execa(process.execPath, [examineEntry, file, String(index)], {
      ...{
        reject: false,
        stdin: "pipe",
        stdout: "pipe",
        buffer: { stdout: false },
        env: environment,
        extendEnv: false,
      },
      ...{ timeout: deadline, killSignal: "SIGKILL" },
    });
    // A process that has ended takes no more questions; its end says why.
    this.#child.stdin.on("error", () => undefined);
    this.#lines = createInterface({ input: this.#child.stdout })[Symbol.asyncIterator]();
  }

  async ask<T>(question: object, schema: z.ZodType<T>): Promise<Answer<T>> {
    if (this.#over !== undefined) return { failure: this.#over };
    this.#child.stdin.write(`${JSON.stringify(question)}\n`);
    const { value: line, done } = await this.#lines.next();
    if (done) {
      this.#over = await this.#why();
      return { failure: this.#over };
    }
    const answer: unknown = JSON.parse(line);
    const failed = errorSchema.safeParse(answer);
    return failed.success ? { failure: failed.data.error } : { value: schema.parse(answer) };
  }

  /** Ends it, once it has done what it is at. */
  async close(): Promise<void> {
    this.#child.stdin.end();
    await this.#child;
  }

  async #why(): Promise<string> {
    const { timedOut, signal, exitCode, stderr } = await this.#child;
    if (timedOut) return `a trial of ${this.file} did not come to an end.`;
    // Node.js names the error in the first line that begins with a word and "Error".
    const said = /^\w*Error.*$/m.exec(stderr)?.[0] ?? stderr.trim().split("\n").at(-1) ?? "";
    const ended = signal === undefined ? `exited with code ${exitCode}` : `was killed by ${signal}`;
    return `a process that tried ${this.file} ${ended}${said === "" ? "" : ` (${said})`}.`;
  }
}
