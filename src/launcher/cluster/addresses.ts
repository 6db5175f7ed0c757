import { createSocket } from "node:dgram";
import { lookup } from "node:dns/promises";
import { isIP, isIPv6 } from "node:net";
import { networkInterfaces } from "node:os";

/** The addresses of a name, in the system's order, without scopes that mean nothing elsewhere. @throws Error where there is none now. */
export async function addressesOf(host: string): Promise<string[]> {
  if (isIP(host.replace(/%.*$/, "")) !== 0) return [host];
  const found = await lookup(host, { all: true, order: "verbatim" });
  return [...new Set(found.map(({ address }) => address))];
}

/** Whether one of this host's interfaces has the address; all of 127.0.0.0/8 are its loopback's. */
export function isOwnAddress(address: string, interfaces = networkInterfaces()): boolean {
  return /^127\./.test(address) || address === "::1" || interfaceOf(address, interfaces) !== undefined;
}

/** The name of the interface that has the address. */
export function interfaceOf(address: string, interfaces = networkInterfaces()): string | undefined {
  const plain = address.replace(/%.*$/, "");
  return Object.entries(interfaces).find(([, found]) => found?.some((each) => each.address === plain))?.[0];
}

/** This host's address on the way to another: the kernel's route decides, and nothing is sent. undefined where there is no way. */
export function sourceTowards(address: string, port: number): Promise<string | undefined> {
  const socket = createSocket(isIPv6(address.replace(/%.*$/, "")) ? "udp6" : "udp4");
  return new Promise((resolve) => {
    const done = (source: string | undefined) => {
      socket.removeAllListeners();
      socket.on("error", () => undefined);
      socket.close();
      resolve(source);
    };
    socket.once("error", () => done(undefined));
    socket.connect(port, address, () => done(socket.address().address));
  });
}

/** Where this host's own processes reach what listens on the address: a loopback where that is all of them. */
export function reachable(address: string): string {
  return address === "0.0.0.0" ? "127.0.0.1" : address === "::" ? "::1" : address;
}
