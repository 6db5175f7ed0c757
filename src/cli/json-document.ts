import type { DitrunError } from "../failure.js";
import { checkDistinct, checkOutputFile, writeOutput } from "../files/output-file.js";

/** What --json asks for: exactly one JSON document, on stdout or in a file, whatever comes of the command. */
export class JsonDocument {
  #written = false;
  #mayWrite: boolean;

  /** @param target of --json: a file, "" for stdout, undefined where no document was asked for. */
  constructor(private readonly target: string | undefined) {
    // A file is left alone until it is known to be what was meant.
    this.#mayWrite = target === "";
  }

  /** Finds out whether the file can be written. @throws DitrunError when it cannot. */
  async check(): Promise<void> {
    if (this.target) await checkOutputFile(this.target, false);
    this.#mayWrite = this.target !== undefined;
  }

  /** Refuses options that name the same file, this document's among them, which is then left alone. @throws DitrunError as checkDistinct does. */
  checkApart(files: Readonly<Record<string, string | undefined>>): void {
    try {
      checkDistinct({ ...files, "--json": this.target });
    } catch (error) {
      this.#mayWrite = this.target === "";
      throw error;
    }
  }

  /** The result; the first document counts. @throws DitrunError when the file cannot be written. */
  async write(document: unknown): Promise<void> {
    if (this.target === undefined || !this.#mayWrite || this.#written) return;
    this.#written = true;
    const text = `${JSON.stringify(document, null, 2)}\n`;
    if (this.target === "") process.stdout.write(text);
    else await writeOutput(this.target, text);
  }

  /**
   * `{ "error": { "message", "code", "exitCode" } }` in place of a result, with `rank`, `host` and `signal` where they are known.
   * @throws DitrunError as write does.
   */
  async fail({ message, code, exitCode, rank, host, signal }: DitrunError): Promise<void> {
    await this.write({ error: { message, code, exitCode, rank, host, signal } });
  }
}
