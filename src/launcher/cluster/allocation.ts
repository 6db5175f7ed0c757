import { DitrunError } from "../../failure.js";
import type { Claim, Said, Variables } from "./claim.js";
import { readIndexedJob, readLeaderWorkerSet } from "./kubernetes.js";
import { readOpenMpi } from "./open-mpi.js";
import { noteOfBatchScript, readSlurm } from "./slurm.js";
import { readEndpoint, readKubeflow, refuseRanks } from "./torchrun.js";

/** What the command line says about hosts; it comes before all that the environment says. */
export interface HostOptions {
  readonly nnodes?: number | undefined;
  readonly nodeRank?: number | undefined;
  readonly masterAddr?: string | undefined;
  readonly masterPort?: number | undefined;
  /** HOST[:PORT] of node 0. */
  readonly rdzvEndpoint?: string | undefined;
  /** Names the job: launchers of another job are refused. */
  readonly rdzvId?: string | undefined;
  /** This host alone, whatever the environment says. */
  readonly standalone?: boolean | undefined;
}

/** What an allocation is read from. */
export interface HostSurroundings {
  readonly variables: Variables;
  /** This host's whole name. */
  readonly fqdn: string;
}

/** The hosts of a job, and this one's place among them. */
export interface Allocation {
  readonly nodes: number;
  /** 0 leads. Left out where the leader gives each host its number: node 0 is the one whose address was given. */
  readonly nodeRank: number | undefined;
  /** Name or address of node 0; left out where it writes it to a file that all can read. */
  readonly leader: string | undefined;
  /** Where node 0 listens; left out as the leader is. */
  readonly port: number | undefined;
  /** Workers of this host, where the environment says so. */
  readonly workers: number | undefined;
  /** The same for all launchers of a job, and another for those of another job or attempt. */
  readonly job: string;
  /** Whether the hosts probably share the user's home folder. */
  readonly sharesHome: boolean;
  /** A sentence: what is believed, and who said so. Empty where there is nothing to say. */
  readonly why: string;
}

/** torchrun's. */
const DEFAULT_PORT = 29_500;
/** Where only an endpoint is named, as for torchrun's c10d, hosts get their numbers as they come. */
const endpoints: readonly string[] = ["--rdzv-endpoint", "PET_RDZV_ENDPOINT"];

const alone: Allocation = {
  ...{ nodes: 1, nodeRank: 0, leader: undefined, port: undefined, workers: undefined },
  ...{ job: "", sharesHome: false, why: "" },
};

/**
 * The hosts of this job. Options come first, then Open MPI, Slurm, LeaderWorkerSet, torchrun's PET_* (Kubeflow), and Indexed Job:
 * the nearest that knows a value is believed, and none may contradict it.
 * @throws DitrunError naming the variables that contradict each other, or of which one is missing: a launcher that took itself
 * for alone would run the whole job once more.
 */
export function findAllocation(options: HostOptions, { variables, fqdn }: HostSurroundings): Allocation {
  const own = claimOf(options);
  if (options.standalone || options.nnodes === 1) return loneNode(options);
  const complete = own.nodes && own.nodeRank && own.leader;
  const others = complete ? [] : readAll(variables, fqdn);
  const claims = [own, ...others];
  const nodes = agreed(claims, "nodes", "hosts");
  const nodeRank = agreed(claims, "nodeRank", "for this host's number");
  if (nodes === undefined || nodes.value === 1) {
    refuseUncounted(claims, nodes);
    if (!complete) refuseRanks(variables);
    const workers = first(claims, "workers")?.value;
    return { ...alone, workers, why: noteOfBatchScript(variables) ?? "" };
  }
  const leader = first(claims, "leader");
  const job = options.rdzvId ?? others.find((claim) => claim.job !== undefined)?.job ?? "";
  const sharesHome = options.rdzvId === undefined && others.some((claim) => claim.job === job && claim.sharesHome);
  if (leader === undefined && !sharesHome) throw lacks(nodes, "where node 0 is", "--master-addr");
  if (nodeRank === undefined && !endpoints.includes(leader?.by ?? ""))
    throw lacks(nodes, "which of them this is", "--node-rank");
  if (nodeRank !== undefined && nodeRank.value >= nodes.value) {
    throw new DitrunError(
      "ERR_ALLOCATION",
      `${nodeRank.by} is ${nodeRank.value}, but ${nodes.by} is ${nodes.value}: hosts are counted from 0 to ${nodes.value - 1}.`,
    );
  }
  const port = first(claims, "port")?.value ?? (leader && DEFAULT_PORT);
  return {
    ...{ nodes: nodes.value, nodeRank: nodeRank?.value, leader: leader?.value, port, job, sharesHome },
    workers: first(claims, "workers")?.value,
    why: sentence({ nodes, nodeRank, leader, claims }),
  };
}

function claimOf({ nnodes, nodeRank, masterAddr, masterPort, rdzvEndpoint }: HostOptions): Claim {
  const said = <T>(value: T | undefined, by: string) => (value === undefined ? undefined : { value, by });
  const endpoint = readEndpoint(said(rdzvEndpoint, "--rdzv-endpoint"));
  return {
    source: "the command line",
    nodes: said(nnodes, "--nnodes"),
    nodeRank: said(nodeRank, "--node-rank"),
    leader: said(masterAddr, "--master-addr") ?? endpoint?.leader,
    // 0 asks for any free port, which only this host would know.
    port: said(masterPort || undefined, "--master-port") ?? endpoint?.port,
  };
}

function loneNode({ nodeRank, nnodes }: HostOptions): Allocation {
  if (!nodeRank) return alone;
  const by = nnodes === undefined ? "--standalone is given" : "--nnodes is 1";
  throw new DitrunError("ERR_ALLOCATION", `--node-rank is ${nodeRank}, but ${by}: leave one of them out.`);
}

function readAll(variables: Variables, fqdn: string): Claim[] {
  const read = [
    readOpenMpi(variables),
    readSlurm(variables),
    readLeaderWorkerSet(variables),
    readKubeflow(variables),
    readIndexedJob(variables, fqdn),
  ];
  return read.filter((claim) => claim !== undefined);
}

function first<Name extends "nodes" | "nodeRank" | "leader" | "port" | "workers">(
  claims: readonly Claim[],
  name: Name,
): Claim[Name] {
  return claims.find((claim) => claim[name] !== undefined)?.[name];
}

/** The first that is said. @throws DitrunError where the environment contradicts itself and no option decides. */
function agreed(claims: readonly Claim[], name: "nodes" | "nodeRank", what: string): Said<number> | undefined {
  const [own, ...others] = claims.map((claim) => claim[name]);
  if (own) return own;
  const said = others.filter((each) => each !== undefined);
  const [believed] = said;
  const other = said.find(({ value }) => value !== believed?.value);
  if (!believed || !other) return believed;
  const option = name === "nodes" ? "--nnodes" : "--node-rank";
  throw new DitrunError(
    "ERR_ALLOCATION",
    `${believed.by} says ${believed.value} ${what}, but ${other.by} says ${other.value}: unset one of them, or give ${option}.`,
  );
}

/** @throws DitrunError where something gives this host a number among several, and nothing says how many. */
function refuseUncounted(claims: readonly Claim[], nodes: Said<number> | undefined): void {
  const numbered = claims.find(({ nodeRank, uncounted }) => nodeRank && (uncounted || nodeRank.value > 0));
  if (!numbered?.nodeRank || (nodes !== undefined && numbered.nodeRank.value === 0)) return;
  const { by, value } = numbered.nodeRank;
  throw new DitrunError(
    "ERR_ALLOCATION",
    nodes === undefined
      ? `${by} is ${value}, but nothing says how many hosts the job has: give --nnodes, 1 where this one works alone.`
      : `${by} is ${value}, but ${nodes.by} is ${nodes.value}: hosts are counted from 0 to ${nodes.value - 1}.`,
  );
}

function lacks(nodes: Said<number>, what: string, option: string): DitrunError {
  return new DitrunError("ERR_ALLOCATION", `${nodes.by} is ${nodes.value}, but nothing says ${what}: give ${option}.`);
}

interface Believed {
  readonly nodes: Said<number>;
  readonly nodeRank: Said<number> | undefined;
  readonly leader: Said<string> | undefined;
  readonly claims: readonly Claim[];
}

function sentence({ nodes, nodeRank, leader, claims }: Believed): string {
  const said = [nodes, nodeRank, leader].filter((each) => each !== undefined);
  const by = [...new Set(said.map((each) => each.by))].join(", ");
  const sources = [
    ...new Set(said.flatMap((each) => claims.filter((claim) => Object.values(claim).includes(each)))),
  ].map(({ source }) => source);
  const place = nodeRank === undefined ? `one of ${nodes.value} hosts` : `node ${nodeRank.value} of ${nodes.value}`;
  return `This is ${place}, by ${sources.join(" and ")} (${by}).`;
}
