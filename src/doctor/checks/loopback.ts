import { connect, createServer } from "node:net";
import { messageOf } from "../../failure.js";
import { defineCheck } from "../check.js";

/** @throws Error where a connection to an address of this host's own cannot be made, or carries nothing. */
export async function tryConnection(address: string): Promise<void> {
  const server = createServer((socket) => socket.end("there"));
  try {
    await new Promise<void>((resolve, reject) => {
      server.once("error", reject).listen(0, address, () => {
        const bound = server.address();
        if (bound === null || typeof bound !== "object") return reject(new Error("it has no number"));
        let said = "";
        connect(bound.port, address)
          .once("error", reject)
          .setEncoding("utf8")
          .on("data", (text) => {
            said += text;
          })
          .once("close", () => (said === "there" ? resolve() : reject(new Error("nothing arrives"))));
      });
    });
  } finally {
    server.close();
  }
}

/** Whether processes of this host reach each other: workers join the launcher so. */
export const loopback = defineCheck({
  ...{ name: "loopback", section: "network", what: "Loopback", deadline: 5 },
  async look() {
    try {
      await tryConnection("127.0.0.1");
      return { failure: null };
    } catch (error) {
      return { failure: messageOf(error) };
    }
  },
  judge({ failure }) {
    if (failure === null) return { state: "ok", value: "127.0.0.1, connected" };
    return {
      ...{ state: "problem", value: `127.0.0.1 cannot be reached: ${failure}` },
      wayOut: "Set the interface up: ip link set lo up.",
    };
  },
});
