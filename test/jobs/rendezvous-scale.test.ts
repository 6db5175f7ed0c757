import { expect, test } from "vitest";
import { followAll, leadAll } from "../../bench/simulated-hosts.js";
import { makeJobKey } from "../../src/launcher/nodes/job-key.js";

/** What goes through node 0 for so many hosts and workers, all simulated in this process. */
async function trafficOf(hosts: number, perHost: number) {
  const key = makeJobKey();
  const { traffic } = await leadAll({ key, hosts, perHost }, (port) =>
    followAll({ port, key, hosts, perHost }, 1, hosts),
  );
  return traffic;
}

test("messages and bytes at node 0 grow with the workers and the hosts, not with their squares", async () => {
  const sizes: readonly [hosts: number, perHost: number][] = [
    [3, 2],
    [3, 8],
    [3, 14],
    [12, 2],
  ];
  const all = [];
  for (const [hosts, perHost] of sizes) all.push(await trafficOf(hosts, perHost));
  // Of a worker: join, request, agreement, barrier, result and end, each with its answer, and two about its end. Of a host:
  // registering, start, end and farewell, each with its answer.
  expect(all.map(({ messages }) => messages)).toEqual(
    sizes.map(([hosts, perHost]) => hosts * perHost * 14 + hosts * 8),
  );
  // As many workers more cost as much more. A byte about each rank to each would add 648.
  const [few = 0, some = 0, many = 0] = all.map(({ bytes }) => bytes);
  expect(Math.abs(many - some - (some - few))).toBeLessThan(400);
});
