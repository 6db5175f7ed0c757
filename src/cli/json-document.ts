import type { DitrunError } from "../failure.js";
import { checkApart, type NamedFile } from "../files/apart.js";
import { checkOutputFile, writeOutput } from "../files/output-file.js";

/** What --json asks for: exactly one JSON document, on stdout or in a file, whatever comes of the command. */
export class JsonDocument {
  #written = false;
  #checked: Promise<void> | undefined;

  /**
   * @param target of --json: a file, "" for stdout, undefined where no document was asked for.
   * @param others that the same line names.
   */
  constructor(
    private readonly target: string | undefined,
    private readonly others: readonly NamedFile[] = [],
  ) {}

  /** Finds out whether the file can be written, and is none of the others. @throws DitrunError when it is not so. */
  check(): Promise<void> {
    this.#checked ??= this.#check();
    return this.#checked;
  }

  async #check(): Promise<void> {
    if (!this.target) return;
    await checkApart({ option: "--json", path: this.target, use: "written" }, this.others);
    await checkOutputFile(this.target, false);
  }

  /**
   * The result; the first document counts. A file that is not what was meant is left alone.
   * @throws DitrunError when the file cannot be written.
   */
  async write(document: unknown): Promise<void> {
    if (this.target === undefined || this.#written) return;
    this.#written = true;
    const text = `${JSON.stringify(document, null, 2)}\n`;
    if (this.target === "") {
      process.stdout.write(text);
      return;
    }
    const isMeant = await this.check().then(
      () => true,
      () => false,
    );
    if (isMeant) await writeOutput(this.target, text);
  }

  /**
   * `{ "error": { "message", "code", "exitCode" } }` in place of a result, with `rank`, `host` and `signal` where they are known.
   * @throws DitrunError as write does.
   */
  async fail({ message, code, exitCode, rank, host, signal }: DitrunError): Promise<void> {
    await this.write({ error: { message, code, exitCode, rank, host, signal } });
  }
}
