import { homeFolder } from "../files/home-folder.js";

/** A path as people write it: `~` for the home folder. */
export function shortPath(path: string): string {
  try {
    const home = homeFolder();
    return home !== "/" && path.startsWith(`${home}/`) ? `~${path.slice(home.length)}` : path;
  } catch {
    return path;
  }
}

/** `3`, `0–3`, `0–1, 4`: numbers in order. */
export function ranges(numbers: readonly number[]): string {
  const found: [first: number, last: number][] = [];
  for (const number of numbers) {
    const range = found.at(-1);
    if (range?.[1] === number - 1) range[1] = number;
    else found.push([number, number]);
  }
  return found.map(([first, last]) => (first === last ? `${first}` : `${first}–${last}`)).join(", ");
}

/** Numbers of those that share a value, by that value, in the order in which it comes. */
export function grouped<T>(items: readonly T[], keyOf: (item: T) => string): Map<string, number[]> {
  const groups = new Map<string, number[]>();
  for (const [index, item] of items.entries()) groups.set(keyOf(item), [...(groups.get(keyOf(item)) ?? []), index]);
  return groups;
}

/** A text with its first letter small or great, and a full stop at its end. */
export function sentence(text: string): string {
  return `${text.slice(0, 1).toUpperCase()}${text.slice(1)}${/[.!?]$/.test(text) ? "" : "."}`;
}
