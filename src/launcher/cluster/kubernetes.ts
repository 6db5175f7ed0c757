import { allOrNone, type Claim, text, type Variables, whole } from "./claim.js";

const leader = "LWS_LEADER_ADDRESS";
const size = "LWS_GROUP_SIZE";
const worker = "LWS_WORKER_INDEX";
const index = "JOB_COMPLETION_INDEX";

/** A LeaderWorkerSet's group (leaderworkerset.sigs.k8s.io): its leader has the index 0. */
export function readLeaderWorkerSet(variables: Variables): Claim | undefined {
  if (!allOrNone(variables, "a LeaderWorkerSet", [leader, size, worker])) return undefined;
  const nodes = whole(variables, size, { least: 1 });
  if (nodes === undefined || nodes.value === 1) return undefined;
  return {
    ...{ source: "the LeaderWorkerSet", nodes },
    nodeRank: whole(variables, worker, { least: 0, most: nodes.value - 1 }),
    leader: text(variables, leader),
  };
}

/**
 * A pod of an Indexed Job, also of a JobSet's. Its hostname ends with its index; that of pod 0 is its own with a 0 there, in the
 * same domain (kubernetes.io, "Job with Pod-to-Pod Communication"). How many there are only --nnodes or PET_NNODES says.
 * @param fqdn the pod's whole name, as its /etc/hosts has it.
 */
export function readIndexedJob(variables: Variables, fqdn: string): Claim | undefined {
  const nodeRank = whole(variables, index, { least: 0 });
  if (nodeRank === undefined) return undefined;
  const [host = "", ...domain] = fqdn.split(".");
  const first = host.endsWith(`-${nodeRank.value}`) ? `${host.slice(0, -String(nodeRank.value).length)}0` : undefined;
  return {
    ...{ source: "the Indexed Job", nodeRank, uncounted: true },
    leader: first === undefined ? undefined : { value: [first, ...domain].join("."), by: index },
  };
}
