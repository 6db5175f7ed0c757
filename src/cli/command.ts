import type { NamedFile } from "../files/apart.js";
import type { Events } from "./events.js";
import type { JobHosts, JobOptions } from "./job-hosts.js";
import type { JsonDocument } from "./json-document.js";
import { type Options, readOptions, type Values } from "./option.js";
import { petValues } from "./run/pet.js";

/** What every command is given besides its options. */
export interface Context {
  /** Its name, as `wan generate`. */
  readonly command: string;
  readonly document: JsonDocument;
  /** Whoever wants progress as JSON. */
  readonly events: Events;
  /** Another program for the workers, for those who use the launcher as a library. */
  readonly entry: string | undefined;
  /** The words of a command that takes them: operands, or those after its options. */
  readonly rest: readonly string[];
  /** Of a command that starts processes: the hosts that it starts them on. */
  readonly hosts: JobHosts | undefined;
}

/** What a command does. It is loaded only when the command runs, so that --help and mistakes cost little. */
export interface Body<Chosen> {
  /** The files that its options name, except that of --json. @throws DitrunError for options that exclude each other. */
  files?(chosen: Chosen): readonly NamedFile[];
  /** @returns the exit code. */
  run(chosen: Chosen, context: Context): Promise<number>;
  /** What this host does where another one leads; ditrun's own workers by default. @returns the exit code. */
  follow?(chosen: Chosen, context: Context): Promise<number>;
}

/** What the command line and its help know of a command. */
export interface Declaration {
  /** One word, or two as `wan generate`. */
  readonly name: string;
  /** A sentence for help. */
  readonly summary: string;
  /** It works as it stands. */
  readonly example: { readonly line: string; readonly describe: string };
  readonly options: Options;
  /** Stands in help for words that are not ditrun's own, as `PROGRAM [ARGUMENTS]`: all from the first one on. */
  readonly rest?: string;
  /** Stands in help for words that the command itself takes, as `FILE...`; options may stand among them. */
  readonly operands?: string;
  /** What becomes of the files that they name; they are read unless this says otherwise. */
  readonly operandsAre?: "written";
  /** Options that variables of the environment stand in for, as with torchrun: PET_NNODES. */
  readonly environment?: Options;
  /** How the hosts of the job are found, where that is not by the options of ditrun's own workers. */
  readonly jobOptions?: (given: ReadonlyMap<string, readonly string[]>) => JobOptions;
}

/** A command that may be run: its options are read, its body is loaded. */
export interface Prepared {
  readonly files: readonly NamedFile[];
  run(context: Context): Promise<number>;
  follow(context: Context): Promise<number>;
}

export interface Command extends Declaration {
  /** @param given texts of its options, by name. @throws DitrunError for values that they cannot have. */
  prepare(given: ReadonlyMap<string, readonly string[]>): Promise<Prepared>;
}

/** A command out of its words and the module that holds its body. */
export function defineCommand<O extends Options>(
  declaration: Declaration & { readonly options: O; readonly load: () => Promise<Body<Values<O>>> },
): Command {
  const { load, ...words } = declaration;
  return {
    ...words,
    async prepare(given) {
      const chosen = readOptions(words.options, given, petValues(words.environment ?? {}, given, process.env));
      const body = await load();
      return {
        files: body.files?.(chosen) ?? [],
        run: (context) => body.run(chosen, context),
        follow: async (context) => body.follow?.(chosen, context) ?? context.hosts?.follow(context.entry) ?? 0,
      };
    },
  };
}
