/** An option of another program: ours of the same meaning, or a sentence that says what to do instead. */
export type Foreign = { readonly to: string; readonly sentence?: undefined } | { readonly sentence: string };

const foreign: Readonly<Record<string, Foreign>> = {};

/** What an option of another program is here. @param name without dashes, with `-` for `_`. */
export function alias(name: string): Foreign | undefined {
  return Object.hasOwn(foreign, name) ? foreign[name] : undefined;
}
