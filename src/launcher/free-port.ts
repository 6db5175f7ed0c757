import { connect, createServer, type Server } from "node:net";
import { DitrunError, messageOf } from "../failure.js";

/**
 * A port of the loopback for a server that one of the ranks will open. It was connected to and closed, so it is in TIME_WAIT for a minute:
 * the kernel gives it to no one who asks for any port, but to a server that names it with SO_REUSEADDR, as PyTorch's store does.
 * So two launches at once do not get the same. @throws DitrunError where there is none.
 */
export async function reservedPort(address = "127.0.0.1"): Promise<number> {
  const server = createServer((socket) => socket.end());
  try {
    const port = await listen(server, 0, address);
    await new Promise<void>((resolve, reject) => {
      // The server closes first, and so it is its port that stays taken.
      connect(port, address)
        .once("error", reject)
        .once("close", () => resolve())
        .resume();
    });
    return port;
  } catch (error) {
    throw new DitrunError("ERR_PORT_TAKEN", `No free port can be had (${messageOf(error)}): give --master-port.`);
  } finally {
    await close(server);
  }
}

/** @throws DitrunError where somebody listens on the port. */
export async function checkPort(port: number, address = "127.0.0.1"): Promise<void> {
  const server = createServer();
  try {
    await listen(server, port, address);
  } catch (error) {
    throw new DitrunError(
      "ERR_PORT_TAKEN",
      `Rank 0 cannot listen on ${address}:${port} (${messageOf(error)}): give another --master-port, or 0 for any free one.`,
    );
  } finally {
    await close(server);
  }
}

function listen(server: Server, port: number, address: string): Promise<number> {
  return new Promise((resolve, reject) => {
    server.once("error", reject).listen(port, address, () => {
      const bound = server.address();
      if (bound !== null && typeof bound === "object") resolve(bound.port);
      else reject(new Error("it has no number"));
    });
  });
}

async function close(server: Server): Promise<void> {
  await new Promise((resolve) => server.close(resolve));
}
