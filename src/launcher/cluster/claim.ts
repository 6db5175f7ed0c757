import { DitrunError } from "../../failure.js";

/** Variables by name, as in process.env. */
export type Variables = Readonly<Record<string, string | undefined>>;

/** A value, and the option or variable that says it. */
export interface Said<T> {
  readonly value: T;
  readonly by: string;
}

/** What one source says about the hosts of this job; what it leaves out it does not know. */
export interface Claim {
  /** As a sentence names it: `Slurm`. */
  readonly source: string;
  readonly nodes?: Said<number> | undefined;
  readonly nodeRank?: Said<number> | undefined;
  /** Name or address of node 0. */
  readonly leader?: Said<string> | undefined;
  readonly port?: Said<number> | undefined;
  /** Workers of this node. */
  readonly workers?: Said<number> | undefined;
  /** Names the job and its attempt: the same on all of its nodes, and another for any other job. */
  readonly job?: string | undefined;
  /** Whether the nodes can be expected to share the user's home folder. */
  readonly sharesHome?: boolean | undefined;
  /** The source gives a node its number, also where it is alone, but not how many there are. */
  readonly uncounted?: boolean | undefined;
}

/** @returns undefined where the variable is not set, or is empty. */
export function text(variables: Variables, name: string): Said<string> | undefined {
  const value = variables[name];
  return value === undefined || value === "" ? undefined : { value, by: name };
}

/** @throws DitrunError where the variable is set to something else than a whole number of that range. */
export function whole(
  variables: Variables,
  name: string,
  { least, most = 2 ** 31 }: { readonly least: number; readonly most?: number },
): Said<number> | undefined {
  const said = text(variables, name);
  if (said === undefined) return undefined;
  const value = Number(said.value);
  if (/^\d+$/.test(said.value) && value >= least && value <= most) return { value, by: name };
  throw new DitrunError(
    "ERR_ALLOCATION",
    `${name} is "${said.value}"; it must be a whole number from ${least} to ${most}: correct it, or unset it.`,
  );
}

export function port(variables: Variables, name: string): Said<number> | undefined {
  return whole(variables, name, { least: 1, most: 65_535 });
}

/**
 * All of the variables or none. @returns whether they are all set.
 * @throws DitrunError naming those that are set and those that are missing.
 */
export function allOrNone(variables: Variables, source: string, names: readonly string[]): boolean {
  const set = names.filter((name) => text(variables, name) !== undefined);
  const missing = names.filter((name) => !set.includes(name));
  if (set.length > 0 && missing.length > 0) {
    throw new DitrunError(
      "ERR_ALLOCATION",
      `${set.join(" and ")} ${set.length === 1 ? "is" : "are"} set, but not ${missing.join(" and ")}: ${source} sets all of them. Set them, or give --nnodes, --node-rank and --master-addr.`,
    );
  }
  return missing.length === 0;
}
