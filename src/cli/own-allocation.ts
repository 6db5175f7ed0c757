import { readFileSync } from "node:fs";
import { hostname } from "node:os";
import { type Allocation, findAllocation } from "../launcher/cluster/allocation.js";
import { hostsOf } from "./options/hosts.js";

/** The hosts of the job, by the options and by what this host's environment says. @throws DitrunError as findAllocation does. */
export function ownAllocation(options: Parameters<typeof hostsOf>[0]): Allocation {
  return findAllocation(hostsOf(options), { variables: process.env, fqdn: wholeHostName() });
}

/** The same of a command that takes no options of hosts. @throws DitrunError as findAllocation does. */
export function environmentAllocation(): Allocation {
  return findAllocation({}, { variables: process.env, fqdn: wholeHostName() });
}

/** This host's name with its domain, where /etc/hosts has it, as Kubernetes writes it for pods with a subdomain. */
function wholeHostName(): string {
  const name = hostname();
  try {
    const words = readFileSync("/etc/hosts", "utf8")
      .split("\n")
      .map((line) => line.replace(/#.*/, "").trim().split(/\s+/));
    return words.flatMap(([, ...names]) => names).find((each) => each.startsWith(`${name}.`)) ?? name;
  } catch {
    return name;
  }
}
