import type { HostOptions } from "../../launcher/cluster/allocation.js";
import { parseNodes } from "../../launcher/cluster/torchrun.js";
import { asPath, asText, maybe, type Option, optional, type Values, whole } from "../option.js";

/** Of every command that starts processes: which hosts the job has, and how they find each other. torchrun's names. */
export const hostsOptions = {
  nnodes: optional(
    { value: "N", describe: "Hosts of the job; start ditrun once on each", usual: "what the scheduler says, else 1" },
    parseNodes,
  ),
  "node-rank": optional(
    { value: "N", describe: "This host's number; host 0 leads, and writes the results", usual: "the scheduler's" },
    whole(0, 65_535),
  ),
  "master-addr": optional({ value: "HOST", describe: "Name or address of host 0" }, asText),
  "local-addr": optional(
    { value: "ADDRESS", describe: "This host's own address for the others", usual: "the one on the way to host 0" },
    asText,
  ),
  "rdzv-endpoint": optional(
    { value: "HOST:PORT", describe: "Host 0, in place of --master-addr; hosts get their numbers as they come" },
    asText,
  ),
  "rdzv-id": optional({ value: "NAME", describe: "Names the job; launchers of another are refused" }, asText),
  standalone: maybe("Take this host alone, whatever a scheduler says"),
  "job-key": optional(
    {
      value: "FILE",
      completes: "file",
      describe: "The hosts' common key, of ditrun key; - reads it from stdin",
      usual: "DITRUN_JOB_KEY_FILE or DITRUN_JOB_KEY",
    },
    asPath,
  ),
} satisfies Record<string, Option<unknown>>;

type HostsOptions = Values<typeof hostsOptions>;

/** What the command line says of hosts. */
export function hostsOf(chosen: HostsOptions & { readonly masterPort: number | undefined }): HostOptions {
  const { nnodes, nodeRank, masterAddr, masterPort, rdzvEndpoint, rdzvId, standalone } = chosen;
  return { nnodes, nodeRank, masterAddr, masterPort, rdzvEndpoint, rdzvId, standalone };
}
