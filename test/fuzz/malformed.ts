import type { Random } from "./random.js";

const odd: readonly unknown[] = [
  ...[
    null,
    true,
    -1,
    1.5,
    2 ** 53,
    1e308,
    "",
    "x",
    "\0",
    "\u202e",
    "x".repeat(70_000),
    "../../etc/passwd",
    "__proto__",
  ],
  ...[[], {}, [[[[]]]], { __proto__: null }, { id: 0 }],
];

/** A message that is not quite one of these: with a field changed, left out or added, or no JSON at all. */
export function malformed(valid: readonly object[], random: Random): Buffer | string {
  const message: Record<string, unknown> = { ...random.of(valid) };
  const name = random.of(Object.keys(message));
  switch (random.whole(8)) {
    case 0:
      delete message[name];
      break;
    case 1:
      message[random.of(["extra", "__proto__", "constructor", "rank"])] = random.of(odd);
      return JSON.stringify({ ...message, extra: 1 });
    case 2:
      return random.bytes(random.whole(2000));
    case 3:
      return JSON.stringify(message).slice(0, -1 - random.whole(5));
    case 4:
      return "[".repeat(1 + random.whole(50_000));
    case 5:
      return JSON.stringify(random.of(odd)) ?? "";
    case 6:
      return `{"__proto__":${JSON.stringify(message)}}`;
    default:
      message[name] = name === "type" ? "nonsense" : random.of([null, {}, [], -1, 1.5]);
  }
  return JSON.stringify(message);
}
