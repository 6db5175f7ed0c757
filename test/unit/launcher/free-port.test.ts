import { createServer } from "node:net";
import { expect, test } from "vitest";
import { checkPort, reservedPort } from "../../../src/launcher/free-port.js";

test("ports are given out once, and a server can open them", async () => {
  const ports = await Promise.all(Array.from({ length: 50 }, () => reservedPort()));
  const others = await Promise.all(Array.from({ length: 50 }, () => reservedPort()));
  expect(new Set([...ports, ...others]).size).toBe(100);
  const server = createServer();
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject).listen(ports[0], "127.0.0.1", resolve);
  });
  await expect(checkPort(ports[0] ?? 0)).rejects.toMatchObject({
    code: "ERR_PORT_TAKEN",
    exitCode: 4,
    message: expect.stringMatching(/^Rank 0 cannot listen on 127\.0\.0\.1:\d+ .*give another --master-port, or 0/),
  });
  await new Promise((resolve) => server.close(resolve));
  await checkPort(ports[0] ?? 0);
});
