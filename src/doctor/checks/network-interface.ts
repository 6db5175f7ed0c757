import { networkInterfaces } from "node:os";
import { addressesOf, interfaceOf, sourceTowards } from "../../launcher/cluster/addresses.js";
import { defineCheck, type Finding } from "../check.js";
import { isUnset } from "../environment.js";
import { allocationOf } from "../host.js";
import { networkFailure } from "../try-network.js";

interface Facts {
  /** This host's interfaces. */
  readonly interfaces: readonly string[];
  /** NCCL_SOCKET_IFNAME; null where it is not set. */
  readonly chosen: string | null;
  /** Host 0 of several; null where this host is alone. */
  readonly leader: string | null;
  /** The way to it, where there is one. */
  readonly way: { readonly address: string; readonly source: string; readonly interface: string | null } | null;
  readonly failure: string | null;
}

/** The interface that would be taken to reach host 0, by asking the kernel for the way. */
export const networkInterface = defineCheck({
  ...{ name: "interface", section: "network", what: "Interface" },
  async look(host): Promise<Facts> {
    const { NCCL_SOCKET_IFNAME } = host.environment;
    const interfaces = Object.keys(networkInterfaces());
    const chosen = isUnset(NCCL_SOCKET_IFNAME) ? null : NCCL_SOCKET_IFNAME;
    const told = { interfaces, chosen };
    const { leader, port } = allocationOf(host) ?? {};
    if (leader === undefined) return { ...told, leader: null, way: null, failure: null };
    try {
      for (const address of await addressesOf(leader)) {
        const source = await sourceTowards(address, port ?? 1);
        if (source !== undefined)
          return { ...told, leader, way: { address, source, interface: interfaceOf(source) ?? null }, failure: null };
      }
      return { ...told, leader, way: null, failure: "there is no way to it" };
    } catch (error) {
      return { ...told, leader, way: null, failure: networkFailure(error) };
    }
  },
  judge({ interfaces, chosen, leader, way, failure }): Finding {
    if (chosen !== null && !interfaces.some((name) => takes(chosen, name))) {
      return {
        ...{ state: "problem", value: `NCCL_SOCKET_IFNAME=${chosen} takes none of ${interfaces.join(", ")}` },
        wayOut: "Unset it, so that ditrun takes the one that reaches host 0, or name one of these.",
      };
    }
    if (leader === null)
      return { state: "ok", value: chosen === null ? "loopback, on one host" : `NCCL_SOCKET_IFNAME=${chosen}` };
    if (way === null) {
      return {
        ...{ state: "problem", value: `host 0, ${leader}, cannot be reached: ${failure}` },
        wayOut: "Give --master-addr a name or address that this host knows.",
      };
    }
    const name = chosen === null ? (way.interface ?? "one that is not told") : `NCCL_SOCKET_IFNAME=${chosen}`;
    return { state: "ok", value: `${name}, from ${way.source} to host 0 at ${way.address}` };
  },
});

/** NCCL's rule: names with commas, each a beginning, or with = a whole name; with ^ those that are not taken. */
export function takes(chosen: string, name: string): boolean {
  const [, sign = "", list = ""] = /^([\^=]*)(.*)$/.exec(chosen) ?? [];
  const named = list.split(",").some((word) => (sign.includes("=") ? name === word : name.startsWith(word)));
  return sign.includes("^") ? !named : named;
}
