import { DitrunError } from "../../failure.js";
import { type Claim, port, type Said, text, type Variables, whole } from "./claim.js";
import { parseEndpoint } from "./endpoint.js";

/** torchrun's own default. */
const ENDPOINT_PORT = 29_400;

/**
 * torchrun's options as variables, which Kubeflow's trainer sets on every pod: PET_NNODES and its like (PyTorch,
 * torch/distributed/argparse_util.py).
 */
export function readKubeflow(variables: Variables): Claim | undefined {
  const nnodes = text(variables, "PET_NNODES");
  const nodes = nnodes && { value: parseNodes(nnodes.value, nnodes.by), by: nnodes.by };
  const nodeRank = whole(variables, "PET_NODE_RANK", { least: 0 });
  const workers = /^\d+$/.test(variables.PET_NPROC_PER_NODE ?? "")
    ? whole(variables, "PET_NPROC_PER_NODE", { least: 1 })
    : undefined;
  const endpoint = readEndpoint(text(variables, "PET_RDZV_ENDPOINT"));
  const claim = {
    ...{ source: "torchrun's variables", nodes, nodeRank, workers },
    leader: text(variables, "PET_MASTER_ADDR") ?? endpoint?.leader,
    port: port(variables, "PET_MASTER_PORT") ?? endpoint?.port,
    job: text(variables, "PET_RDZV_ID")?.value,
  };
  return nodes === undefined && nodeRank === undefined && workers === undefined ? undefined : claim;
}

/** `HOST[:PORT]` of --rdzv-endpoint. */
export function readEndpoint(
  said: Said<string> | undefined,
): { readonly leader: Said<string>; readonly port: Said<number> } | undefined {
  if (said === undefined) return undefined;
  const { host, port: at } = parseEndpoint(said.value, said.by);
  return { leader: { value: host, by: said.by }, port: { value: at ?? ENDPOINT_PORT, by: said.by } };
}

/** `N`, or torchrun's `MIN:MAX` where both are the same. @throws DitrunError for another, or for what is no number. */
export function parseNodes(value: string, by: string): number {
  const [, least = "", most = least] = /^(\d{1,5})(?::(\d{1,5}))?$/.exec(value) ?? [];
  if (Number(least) >= 1 && Number(least) === Number(most)) return Number(least);
  const elastic = least !== "" && most !== "" && Number(least) >= 1;
  throw new DitrunError(
    "ERR_ALLOCATION",
    elastic
      ? `${by} is ${value}, but ditrun runs on a fixed number of hosts: give one number.`
      : `${by} is "${value}"; it must be the number of hosts.`,
  );
}

/**
 * ditrun started once for each rank, by torchrun or in its manner: every rank would run the whole job.
 * @throws DitrunError where that is so.
 */
export function refuseRanks(variables: Variables): void {
  const size = text(variables, "WORLD_SIZE");
  const rank = text(variables, "RANK");
  if (size === undefined || rank === undefined || size.value === "1") return;
  const told = `RANK is ${rank.value} and WORLD_SIZE is ${size.value}`;
  const by = text(variables, "TORCHELASTIC_RUN_ID")
    ? "torchrun started ditrun as one of its ranks"
    : "they may count hosts or workers";
  throw new DitrunError(
    "ERR_ALLOCATION",
    `${told}: ${by}. Start ditrun once on each host with --nnodes, --node-rank and --master-addr, or give --nnodes 1.`,
  );
}
