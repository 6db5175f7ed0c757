import { describe, expect, test } from "vitest";
import { type Failure, Failures } from "../../../src/launcher/first-cause.js";

const own = (rank: number): Failure => ({ code: "ERR_RANK_FAILED", rank, message: `rank ${rank} broke`, echo: false });
const echo = (rank: number): Failure => ({
  code: "ERR_PEER_LOST",
  rank,
  message: `rank ${rank} lost its peers`,
  echo: true,
});
const failures = (...all: Failure[]): Failures => {
  const list = new Failures();
  for (const each of all) list.add(each);
  return list;
};

describe("the cause", () => {
  test.each([
    ["of two that broke, the first", [own(2), own(0), own(1)], "rank 2 broke"],
    [
      "one that broke, though its peers were faster to say that they lost it",
      [echo(0), echo(3), own(1), echo(2)],
      "rank 1 broke",
    ],
    [
      "the one that came about first, though its news came last",
      [
        { ...own(2), at: 7 },
        { ...own(1), at: 5 },
      ],
      "rank 1 broke",
    ],
    ["the first of echoes, where nobody tells of more", [echo(1), echo(0)], "rank 1 lost its peers"],
  ])("is %s", (_, all, message) => {
    expect(failures(...all).cause?.message).toBe(message);
  });

  test("is certain as soon as one is no echo", () => {
    expect([failures().certain, failures(echo(0), echo(1)).certain, failures(echo(0), own(1)).certain]).toEqual([
      false,
      false,
      true,
    ]);
  });

  test("is none of nothing", () => {
    expect(failures().cause).toBeUndefined();
    expect([failures().some, failures(own(1)).some, failures(own(1)).of(1), failures(own(1)).of(0)]).toEqual([
      false,
      true,
      true,
      false,
    ]);
  });
});
