import type { NetworkInterfaceInfo } from "node:os";
import { describe, expect, it } from "vitest";
import { interfaceTo, ncclVariables } from "../../../src/launcher/cluster/nccl-interface.js";

function at(cidr: string, internal = false): NetworkInterfaceInfo {
  const [address = ""] = cidr.split("/");
  const rest = { address, cidr, internal, mac: "00:00:00:00:00:00", netmask: "" };
  return address.includes(":") ? { ...rest, family: "IPv6", scopeid: 0 } : { ...rest, family: "IPv4" };
}

const loopback = [at("127.0.0.1/8", true), at("::1/128", true)];
/** A host of a cluster: management, a fabric with a network within a wider one, and containers. */
const host = {
  lo: loopback,
  eth0: [at("10.0.0.7/16"), at("fe80::1/64"), at("2001:db8::7/64")],
  ib0: [at("10.0.9.7/24"), at("fd00:9::7/64")],
  docker0: [at("172.17.0.1/16")],
};

describe("the interface that reaches the leader", () => {
  it.for([
    ["its own address", "10.0.9.7", "ib0"],
    ["an address of a network", "10.0.4.1", "eth0"],
    ["an address of the smaller of two networks", "10.0.9.1", "ib0"],
    ["IPv6 of a network", "fd00:9::1", "ib0"],
    ["IPv6 written otherwise", "2001:0db8:0::0007", "eth0"],
    ["IPv4 as a socket of IPv6 shows it", "::ffff:10.0.9.1", "ib0"],
    ["an address with a zone", "fe80::2%ib0", "ib0"],
    ["loopback", "127.0.0.1", "lo"],
    ["an address behind one of several routers", "192.168.1.1", undefined],
    ["a name", "leader.example", undefined],
  ] as const)("for %s", ([, leader, name]) => {
    expect(interfaceTo(leader, host)).toBe(name);
  });

  it("is the only one that leads out, where the leader is behind a router", () => {
    const simple = { lo: loopback, ens5: [at("10.1.0.5/20"), at("fe80::5/64")], none: undefined };
    expect(interfaceTo("10.9.9.9", simple)).toBe("ens5");
    // A link-local address leads nowhere.
    expect(interfaceTo("2001:db8::1", simple)).toBeUndefined();
  });
});

describe("what NCCL is told", () => {
  it("is that interface and no other, of the leader's family", () => {
    expect(ncclVariables("10.0.9.1", {}, host)).toEqual({ NCCL_SOCKET_IFNAME: "=ib0" });
    expect(ncclVariables("fd00:9::1", {}, host)).toEqual({
      NCCL_SOCKET_IFNAME: "=ib0",
      NCCL_SOCKET_FAMILY: "AF_INET6",
    });
    expect(ncclVariables("fd00:9::1", { NCCL_SOCKET_FAMILY: "AF_INET" }, host)).toEqual({ NCCL_SOCKET_IFNAME: "=ib0" });
  });

  it("is nothing on one host, where the user has said it, and where it is not known", () => {
    for (const leader of ["127.0.0.1", "127.0.0.2", "::1", "::ffff:127.0.0.1", "192.168.1.1"])
      expect(ncclVariables(leader, {}, host)).toEqual({});
    expect(ncclVariables("10.0.9.1", { NCCL_SOCKET_IFNAME: "eth" }, host)).toEqual({});
  });
});
