import type { DitrunError } from "../failure.js";
import { checkApart, type NamedFile } from "../files/apart.js";
import { checkOutputFile, writeOutput } from "../files/output-file.js";
import type { Envelope } from "./envelope.js";
import type { FailureFields } from "./events.js";

/** What --json asks for: exactly one JSON document, on stdout or in a file, whatever comes of the command. */
export class JsonDocument {
  #written = false;
  #checked: Promise<void> | undefined;
  #result: object | null = null;

  /**
   * @param target of --json: a file, "" for stdout, undefined where no document was asked for.
   * @param envelope what every document begins with. @param others that the same line names.
   */
  constructor(
    private readonly target: string | undefined,
    readonly envelope: Envelope,
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

  /** What a command has written, whether or not anyone asked for the document; null before. */
  get result(): object | null {
    return this.#result;
  }

  /**
   * The result; the first document counts. A file that is not what was meant is left alone.
   * @throws DitrunError when the file cannot be written.
   */
  async write(document: object): Promise<void> {
    if (!this.#written && !("error" in document)) this.#result ??= document;
    if (this.target === undefined || this.#written) return;
    this.#written = true;
    const text = `${JSON.stringify({ ...this.envelope, ...document }, null, 2)}\n`;
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
   * The envelope and `{ "error": { "message", "code", "exitCode" } }` in place of a result, with `rank`, `host` and `signal` where they are known.
   * @throws DitrunError as write does.
   */
  async fail(error: DitrunError): Promise<void> {
    await this.write({ error: failureFields(error) });
  }
}

/** A failure as documents and events have it. */
export function failureFields({ message, code, exitCode, rank, host, signal }: DitrunError): FailureFields {
  return { message, code, exitCode, rank, host, signal };
}
