import { describe, expect, it } from "vitest";
import { Arena, alignUp } from "../../../../src/worker/runtime/arena.js";

describe("Arena", () => {
  it("measures, then returns the same addresses for the same calls", () => {
    const arena = new Arena();
    const walk = () =>
      arena.scope(() => [arena.allocate(10), arena.scope(() => arena.allocate(5000)), arena.allocate(1)]);
    walk();
    expect(arena.peak).toBe(alignUp(10) + alignUp(5000));
    arena.back(1 << 20, arena.peak);
    const first = walk();
    expect(first[0]).toBe(1 << 20);
    expect(first[1]).toBe(first[2]);
    expect(walk()).toEqual(first);
  });

  it("refuses more than it measured", () => {
    const arena = new Arena();
    arena.scope(() => arena.allocate(100));
    arena.back(4096, arena.peak);
    arena.allocate(100);
    expect(() => arena.allocate(1)).toThrow(/asked for 2048 bytes/);
  });
});
