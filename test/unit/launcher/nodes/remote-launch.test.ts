import { expect, test } from "vitest";
import type { Member } from "../../../../src/launcher/nodes/members.js";
import { RemoteLaunch } from "../../../../src/launcher/nodes/remote-launch.js";
import type { FollowerMessage, LeaderMessage } from "../../../../src/protocol/node-messages.js";

function member(node: number) {
  const sent: LeaderMessage[] = [];
  const one: Member = {
    ...{ node, host: `h${node}`, name: `Host h${node} (node ${node})`, workers: 2, offer: "{}", lost: false },
    send: (message) => sent.push(message),
  };
  return { one, sent };
}

const place = { id: "job/attempt-1", perNode: [1, 2, 2], port: 7, detail: "{}" };
const exited = (launch: number, rank: number, code: number): Extract<FollowerMessage, { type: "exited" }> => ({
  ...{ type: "exited", launch, rank, ago: 0, lines: [] },
  exit: { kind: "code", code },
});

test("messages of the attempt before, and about ranks of another host, change nothing", async () => {
  const [first, second] = [member(1), member(2)];
  const launch = new RemoteLaunch(1, place, [first.one, second.one]);
  const ranks = launch.start("mark");
  expect(ranks.map(({ rank, host }) => [rank, host])).toEqual([
    [1, "h1"],
    [2, "h1"],
    [3, "h2"],
    [4, "h2"],
  ]);
  expect(second.sent).toEqual([expect.objectContaining({ type: "start", launch: 1, first: 3, count: 2, size: 5 })]);
  expect(() => launch.handle(first.one, exited(0, 1, 3))).toThrow("launch 0 is not its");
  expect(() => launch.handle(first.one, { type: "ended", launch: 0, stuck: [] })).toThrow("launch 0 is not its");
  expect(() => launch.handle(first.one, exited(1, 3, 3))).toThrow("rank 3 is not its");
  expect(() => launch.handle(second.one, exited(1, 2, 3))).toThrow("rank 2 is not its");
  expect(() => launch.handle(member(3).one, exited(1, 1, 3))).toThrow("launch 1 is not its");
  expect(ranks.every(({ running }) => running)).toBe(true);

  launch.handle(first.one, exited(1, 2, 7));
  launch.handle(first.one, exited(1, 2, 0));
  // The first word counts.
  expect(await ranks[1]?.exited).toEqual({ kind: "code", code: 7 });
  expect(ranks.map(({ running }) => running)).toEqual([true, false, true, true]);
  expect(launch.ranksOf(first.one)).toBe("rank 1");
});

test("a signal to all ranks is one message a host", async () => {
  const [first, second] = [member(1), member(2)];
  const launch = new RemoteLaunch(0, place, [first.one, second.one]);
  for (const rank of launch.start("mark")) rank.signal("SIGTERM");
  await Promise.resolve();
  expect([first, second].map(({ sent }) => sent.slice(1))).toEqual([
    [{ type: "signal", launch: 0, signal: "SIGTERM", ranks: [1, 2] }],
    [{ type: "signal", launch: 0, signal: "SIGTERM", ranks: [3, 4] }],
  ]);
});
