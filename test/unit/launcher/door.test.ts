import { once } from "node:events";
import { connect, type Socket } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { afterEach, expect, test, vi } from "vitest";
import { Context, curveKeyPair, Dealer } from "zeromq";
import { Door } from "../../../src/launcher/rendezvous/door.js";
import { PortSockets } from "../../../src/launcher/rendezvous/port-sockets.js";
import { serverSocket } from "../../../src/launcher/rendezvous/server-socket.js";

const closers: (() => void)[] = [];
afterEach(() => {
  for (const close of closers.splice(0)) close();
});

test("a flood of connections is shut out, those that are in go on, and later ones come in", async () => {
  const server = curveKeyPair();
  const socket = serverSocket(new Context({ blocky: false }), server.secretKey, "127.0.0.1", 0);
  const port = () => Number(socket.lastEndpoint?.split(":").at(-1));
  const warnings: string[] = [];
  // 256 open files: 32 more connections than expected.
  const door = new Door(socket, 2, port, (message) => warnings.push(message), 256);
  await socket.bind("tcp://127.0.0.1:*");
  const own = curveKeyPair();
  const keys = { curveServerKey: server.publicKey, curvePublicKey: own.publicKey, curveSecretKey: own.secretKey };
  const member = () => {
    const dealer = new Dealer({ context: new Context({ blocky: false }), linger: 0, ...keys });
    dealer.connect(`tcp://127.0.0.1:${port()}`);
    closers.push(() => dealer.close());
    return dealer;
  };
  closers.push(() => door.close());
  closers.push(() => socket.close());
  const early = member();
  await early.send("hello");
  const [route] = await socket.receive();
  if (route === undefined) throw new Error("Nobody has said hello.");

  const strangers: Socket[] = [];
  const flood = async () => {
    const one = connect(port(), "127.0.0.1");
    one.on("error", () => undefined);
    strangers.push(one);
    closers.push(() => one.destroy());
    await Promise.race([once(one, "connect"), sleep(200)]);
  };
  const many = (count: number) => Promise.all(Array.from({ length: count }, flood));
  while (warnings.length === 0 && strangers.length < 5000) await many(20);
  const sockets = await PortSockets.of(port());
  // What the kernel held before comes in first.
  let open = 0;
  await vi.waitFor(() => {
    const before = open;
    open = sockets.connected;
    expect(open).toBe(before);
  });
  expect(open).toBeGreaterThan(18);
  await many(100);
  expect(sockets.connected).toBe(open);
  expect(warnings).toEqual([`More than 18 connections are open at port ${port()}: others wait until some have ended.`]);

  await socket.send([route, "still here"]);
  expect(String((await early.receive())[0])).toBe("still here");

  for (const one of strangers) one.destroy();
  await member().send("late");
  expect(String((await socket.receive())[1])).toBe("late");
  await vi.waitFor(() => expect(sockets.connected).toBe(2), { timeout: 20_000 });
});
