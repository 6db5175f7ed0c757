import { createSocket } from "node:dgram";
import { lookup } from "node:dns/promises";
import { isIP, isIPv6 } from "node:net";
import { type NetworkInterfaceInfo, networkInterfaces } from "node:os";

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

/**
 * This host's address for its own processes and for those of other hosts, where it listens at `address`: that one, or where it is
 * all of them, the one that others have reached. @param reached in the order in which they came; one that is not this host's is a service's.
 */
export function ownAddressAmong(
  address: string,
  reached: readonly string[],
  interfaces: NodeJS.Dict<NetworkInterfaceInfo[]> = networkInterfaces(),
): string {
  if (reachable(address) === address) return address;
  const own = reached.filter((each) => isOwnAddress(each, interfaces));
  return (
    own.find((each) => !isLoopback(each)) ??
    own[0] ??
    (reached.length > 0 ? outsideAddresses(interfaces)[0] : undefined) ??
    reachable(address)
  );
}

/** This host's addresses on networks, those of IPv4 first; its loopback where it has none. */
export function outsideAddresses(interfaces: NodeJS.Dict<NetworkInterfaceInfo[]> = networkInterfaces()): string[] {
  const found = Object.values(interfaces).flatMap((each) => each ?? []);
  const outside = found.filter(({ internal, address }) => !internal && !address.startsWith("fe80:"));
  const inOrder = [...outside].sort((a, b) => a.family.localeCompare(b.family));
  return inOrder.length > 0 ? inOrder.map(({ address }) => address) : ["127.0.0.1"];
}

export function isLoopback(address: string): boolean {
  return address === "::1" || address.startsWith("127.");
}
