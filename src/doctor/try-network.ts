import { connect, createServer, type Server } from "node:net";
import { messageOf } from "../failure.js";

/** Plain words for the network's failures that users meet. */
const reasons: Readonly<Record<string, string>> = {
  EADDRINUSE: "another program listens there",
  EADDRNOTAVAIL: "this host has no such address",
  EAFNOSUPPORT: "this host does not know such addresses",
  EACCES: "this user may not listen there",
  EPERM: "this user may not do so",
  ENETUNREACH: "there is no way to it",
  EHOSTUNREACH: "there is no way to it",
  ECONNREFUSED: "nobody answers there",
  ENOTFOUND: "its name is not known",
  EAI_AGAIN: "its name cannot be looked up now",
};

/** Why something on the network failed, as the end of a sentence. */
export function networkFailure(error: unknown): string {
  const code = error instanceof Error && "code" in error && typeof error.code === "string" ? error.code : "";
  return reasons[code] ?? messageOf(error);
}

/** Listens on a port of an address; 0 takes any free one. @throws Error where nobody can. */
export async function tryListening(address: string, port: number): Promise<void> {
  const server = createServer();
  await listen(server, address, port);
  server.close();
}

/** Connects to an address of this host, where a program of its own sends a word. @throws Error where that fails. */
export async function tryConnection(address: string): Promise<void> {
  const server = createServer((socket) => socket.end("there"));
  try {
    const port = await listen(server, address, 0);
    const said = await new Promise<string>((resolve, reject) => {
      let text = "";
      connect(port, address)
        .once("error", reject)
        .setEncoding("utf8")
        .on("data", (more) => {
          text += more;
        })
        .once("close", () => resolve(text));
    });
    if (said !== "there") throw new Error("nothing arrives");
  } finally {
    server.close();
  }
}

function listen(server: Server, address: string, port: number): Promise<number> {
  return new Promise((resolve, reject) => {
    server.once("error", reject).listen(port, address, () => {
      const bound = server.address();
      if (bound !== null && typeof bound === "object") resolve(bound.port);
      else reject(new Error("it has no number"));
    });
  });
}
