import { camelCase, type Options } from "../option.js";

/**
 * Options that PET_NAME variables stand in for where the line does not give them, as with torchrun: `PET_NPROC_PER_NODE=8`.
 * Those that are empty count as not set. @throws DitrunError for values that an option cannot have.
 */
export function petValues(
  options: Options,
  given: ReadonlyMap<string, readonly string[]>,
  environment: Readonly<Record<string, string | undefined>>,
): Readonly<Record<string, unknown>> {
  const found: Record<string, unknown> = {};
  for (const [name, option] of Object.entries(options)) {
    const variable = `PET_${torchNames[name] ?? name.replaceAll("-", "_").toUpperCase()}`;
    const text = environment[variable];
    if (text === undefined || text === "" || given.has(name)) continue;
    // torchrun's switches are numbers.
    const word =
      option.value === undefined ? (text === "1" ? "true" : text === "0" ? "false" : text.toLowerCase()) : text;
    found[camelCase(name)] = option.read([word], variable);
  }
  return found;
}

const torchNames: Readonly<Record<string, string>> = { nproc: "NPROC_PER_NODE" };
