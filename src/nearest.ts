/**
 * The name that was probably meant, if one is near enough: a third of its letters, and at least one, may be missing, wrong, extra
 * or swapped; else the first that begins with what was typed, or the longest that it begins with.
 * Capital letters, `_`, `-` and spaces do not count. @param names to choose from; of equally near ones the first is taken.
 */
export function nearest(typed: string, names: readonly string[]): string | undefined {
  const plain = (name: string) => name.toLowerCase().replace(/[\s_-]/g, "");
  const wanted = plain(typed);
  let best: { name: string; distance: number } | undefined;
  for (const name of names) {
    const distance = editDistance(wanted, plain(name));
    const [least, most] = [wanted.length, plain(name).length].sort((a, b) => a - b);
    const limit = Math.max(1, Math.floor((most ?? 0) / 3));
    // Names of two letters have too little in common.
    const isNear = distance === 0 || (distance <= limit && distance < (least ?? 0) && (most ?? 0) > 2);
    if (isNear && distance < (best?.distance ?? Number.POSITIVE_INFINITY)) best = { name, distance };
  }
  if (best || wanted.length < LEAST_BEGINNING) return best?.name;
  const longer = names.find((name) => plain(name).startsWith(wanted));
  const shorter = names.filter((name) => plain(name).length >= LEAST_BEGINNING && wanted.startsWith(plain(name)));
  return longer ?? shorter.sort((a, b) => b.length - a.length)[0];
}

/** Fewer letters are the beginning of too much. */
const LEAST_BEGINNING = 4;

/** Letters to insert, delete, replace or swap with their neighbour (optimal string alignment, Damerau 1964). */
export function editDistance(a: string, b: string): number {
  let before: number[] = [];
  let last = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i++) {
    const row = [i];
    for (let j = 1; j <= b.length; j++) {
      const cost = a[i - 1] === b[j - 1] ? 0 : 1;
      let least = Math.min((last[j] ?? 0) + 1, (row[j - 1] ?? 0) + 1, (last[j - 1] ?? 0) + cost);
      if (i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1])
        least = Math.min(least, (before[j - 2] ?? 0) + 1);
      row.push(least);
    }
    [before, last] = [last, row];
  }
  return last[b.length] ?? 0;
}
