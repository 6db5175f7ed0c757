import { BlockList, isIP } from "node:net";
import { type NetworkInterfaceInfo, networkInterfaces } from "node:os";

/** As os.networkInterfaces gives them: every address of this host, by interface. */
type Interfaces = NodeJS.Dict<readonly NetworkInterfaceInfo[]>;

/**
 * The interface by which this host reaches an address: the one that has it, else the one with the smallest network that it is in, else
 * the only one that leads out.
 * @param address IPv4 or IPv6; the zone of `fe80::1%eth0` is the interface.
 * @returns undefined where it cannot be told: behind a router, with several interfaces that lead out.
 */
export function interfaceTo(address: string, interfaces: Interfaces): string | undefined {
  const [plain = "", zone] = unmapped(address).split("%");
  if (zone !== undefined) return zone;
  const family = familyOf(plain);
  if (family === undefined) return undefined;
  const own = Object.entries(interfaces).flatMap(([name, addresses = []]) =>
    addresses.filter((each) => each.family === family).map((each) => ({ name, ...each })),
  );
  const holder = own.find(
    (each) => familyOf(each.address) !== undefined && contains(`${each.address}/${bitsOf(family)}`, plain),
  );
  if (holder) return holder.name;
  const near = own
    .flatMap(({ name, cidr }) => (cidr !== null && contains(cidr, plain) ? [{ name, bits: prefixOf(cidr) }] : []))
    .sort((one, other) => other.bits - one.bits);
  if (near[0]) return near[0].name;
  const outward = new Set(
    own.filter(({ internal, address: each }) => !internal && !/^fe[89ab]/i.test(each)).map(({ name }) => name),
  );
  return outward.size === 1 ? [...outward][0] : undefined;
}

/**
 * What tells NCCL, and the CPU module's TCP, to talk over the interface that reaches the leader. What the user has set stays; a leader on
 * loopback needs nothing.
 * @param leader the address of rank 0's host.
 */
export function ncclVariables(
  leader: string,
  { NCCL_SOCKET_IFNAME: chosen, NCCL_SOCKET_FAMILY: family }: NodeJS.ProcessEnv = process.env,
  interfaces: Interfaces = networkInterfaces(),
): Record<string, string> {
  const address = unmapped(leader);
  if (chosen || isLoopback(address)) return {};
  const name = interfaceTo(address, interfaces);
  if (name === undefined) return {};
  // The sign: this name, and not all that begin so.
  return {
    NCCL_SOCKET_IFNAME: `=${name}`,
    ...(!family && familyOf(address) === "IPv6" && { NCCL_SOCKET_FAMILY: "AF_INET6" }),
  };
}

function familyOf(address: string): "IPv4" | "IPv6" | undefined {
  const version = isIP(address.split("%")[0] ?? "");
  return version === 4 ? "IPv4" : version === 6 ? "IPv6" : undefined;
}

const bitsOf = (family: "IPv4" | "IPv6") => (family === "IPv4" ? 32 : 128);
const prefixOf = (cidr: string) => Number(cidr.split("/")[1]);

/** IPv4 as sockets of IPv6 show it, `::ffff:10.0.0.1`, is IPv4. */
function unmapped(address: string): string {
  return address.replace(/^::ffff:(?=\d+\.)/i, "");
}

function isLoopback(address: string): boolean {
  return contains("127.0.0.0/8", address) || contains("::1/128", address);
}

function contains(cidr: string, address: string): boolean {
  const [network = "", bits] = cidr.split("/");
  const [family, other] = [familyOf(network), familyOf(address)];
  if (family === undefined || family !== other) return false;
  const type = family === "IPv4" ? "ipv4" : "ipv6";
  const list = new BlockList();
  list.addSubnet(network.split("%")[0] ?? "", Number(bits), type);
  return list.check(address, type);
}
