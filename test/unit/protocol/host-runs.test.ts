import { expect, test } from "vitest";
import { hostOfRanks, hostRunsOf, hostRunsSchema } from "../../../src/protocol/host-runs.js";

test.each([
  [[2], [{ hosts: 1, ranks: 2 }], [0, 0]],
  [
    [2, 1, 1],
    [
      { hosts: 1, ranks: 2 },
      { hosts: 2, ranks: 1 },
    ],
    [0, 0, 1, 2],
  ],
  [
    [1, 0, 2],
    [
      { hosts: 1, ranks: 1 },
      { hosts: 1, ranks: 0 },
      { hosts: 1, ranks: 2 },
    ],
    [0, 2, 2],
  ],
])("hosts with %j ranks are told of in runs", (perNode, runs, hosts) => {
  expect(hostRunsOf(perNode)).toEqual(runs);
  expect(hostRunsSchema.parse(runs)).toEqual(runs);
  expect(hostOfRanks(runs)).toEqual(hosts);
});

test("what each rank is told does not grow with the hosts, where they are alike", () => {
  expect(hostRunsOf(Array<number>(512).fill(8))).toEqual([{ hosts: 512, ranks: 8 }]);
});
