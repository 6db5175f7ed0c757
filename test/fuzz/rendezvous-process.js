// A rendezvous of three ranks in a process of its own, whose memory is its own: tells where it listens, and with which keys.
import { Rendezvous } from "../../dist/launcher/rendezvous/server.js";

const settings = { id: "fuzz", device: "cpu", kernels: "none", timeoutSeconds: 300 };
const say = (kind, message) => process.stdout.write(`${JSON.stringify({ kind, message })}\n`);
const rendezvous = await Rendezvous.open(
  { size: 3, port: 0, timeoutSeconds: 300, welcome: () => new TextEncoder().encode(JSON.stringify(settings)) },
  {
    emitted: async () => undefined,
    fault: (_, message) => message,
    failed: (_, { message }) => say("failed", message),
    overdue: (message) => say("overdue", message),
    warning: (message) => say("warning", message),
  },
);
const { port, address, serverKey, clientKeys } = rendezvous;
say("open", { port, address, serverKey, ...clientKeys });
process.stdin.resume().on("end", () => {
  rendezvous.close();
  process.exit();
});
