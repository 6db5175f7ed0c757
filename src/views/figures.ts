/** Three or more significant digits, without an exponent. */
export function figures(value: number): string {
  const size = Math.abs(value);
  return value.toFixed(size >= 100 || size === 0 ? 1 : size >= 1 ? 2 : size >= 0.01 ? 4 : 6);
}

/** `11.3 GB`, `304 kB`: three digits in the unit that suits, of 1000 each. */
export function byteSize(bytes: number): string {
  for (const [unit, size] of [
    ["GB", 1e9],
    ["MB", 1e6],
    ["kB", 1e3],
  ] as const) {
    if (bytes >= size) return `${threeDigits(bytes / size)} ${unit}`;
  }
  return `${Math.round(bytes)} bytes`;
}

/** `1.84`, `37.5`, `204`: three digits where there is no more to tell. */
export function threeDigits(value: number): string {
  const size = Math.abs(value);
  return value.toFixed(size >= 100 ? 0 : size >= 10 ? 1 : 2);
}
