import type { NetworkInterfaceInfo } from "node:os";
import { expect, test } from "vitest";
import { outsideAddresses, ownAddressAmong } from "../../../../src/launcher/cluster/addresses.js";

const v4 = (address: string, internal = false): NetworkInterfaceInfo => ({
  ...{ address, netmask: "255.255.255.0", mac: "", internal, cidr: `${address}/24`, family: "IPv4" },
});
const interfaces = { lo: [v4("127.0.0.1", true)], eth0: [v4("10.0.0.4")], ib0: [v4("172.16.0.4")] };

test.each([
  ["where it listens at one address, that one", "10.0.0.4", ["172.16.0.4"], "10.0.0.4"],
  ["where it listens at all, the one that the others reach", "0.0.0.0", ["172.16.0.4"], "172.16.0.4"],
  ["not the loopback, where one other is on this host", "0.0.0.0", ["127.0.0.1", "10.0.0.4"], "10.0.0.4"],
  ["the loopback, where all are on this host", "0.0.0.0", ["127.0.0.1"], "127.0.0.1"],
  ["an own one, where they come through a service's address", "0.0.0.0", ["10.96.0.1"], "10.0.0.4"],
  ["the loopback while nobody has come", "::", [], "::1"],
])("%s", (_name, address, reached, expected) => {
  expect(ownAddressAmong(address, reached, interfaces)).toBe(expected);
});

test("addresses of a link alone are none for other hosts; a host without a network has its loopback", () => {
  const link: NetworkInterfaceInfo = {
    ...{ address: "fe80::1", netmask: "", mac: "", internal: false, cidr: null, family: "IPv6", scopeid: 2 },
  };
  expect(outsideAddresses({ ...interfaces, eth1: [link] })).toEqual(["10.0.0.4", "172.16.0.4"]);
  expect(outsideAddresses({ lo: interfaces.lo })).toEqual(["127.0.0.1"]);
});
