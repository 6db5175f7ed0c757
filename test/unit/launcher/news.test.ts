import { setTimeout as sleep } from "node:timers/promises";
import { expect, test } from "vitest";
import { openOwnLog } from "../../../src/launcher/logs.js";
import { RemoteRank } from "../../../src/launcher/nodes/remote-rank.js";
import { Supervisor } from "../../../src/launcher/supervisor.js";

test("a rank of another host that ended first is the cause, though how it ended is told last", async () => {
  const supervisor = new Supervisor({ id: "news", nproc: 1, log: openOwnLog(), mayEnd: () => true });
  const remote = new RemoteRank(1, "elsewhere", () => undefined);
  const here = () => ({
    command: ["sh", "-c", "sleep 0.1; exit 6"] as const,
    environment: {},
    stdin: "empty" as const,
  });
  await supervisor.start(here, { start: () => [remote], end: async () => [] });
  remote.died(performance.now());
  void sleep(900).then(() => remote.ended({ kind: "code", code: 5 }));
  const cause = await supervisor.until(() => false);
  expect(cause).toMatchObject({ rank: 1, exitCode: 5 });
  await expect(supervisor.end(cause, async () => undefined)).rejects.toMatchObject({ rank: 1, host: "elsewhere" });
});
