import { DitrunError } from "../../failure.js";
import { allOrNone, type Claim, text, type Variables, whole } from "./claim.js";

const size = "OMPI_COMM_WORLD_SIZE";
const rank = "OMPI_COMM_WORLD_RANK";
const localSize = "OMPI_COMM_WORLD_LOCAL_SIZE";

/**
 * mpirun of Open MPI (its manual, "Environment variables"): one process on each node. It says nothing about addresses.
 * @throws DitrunError where it started several processes on a node: each would start all of the node's workers.
 */
export function readOpenMpi(variables: Variables): Claim | undefined {
  if (!allOrNone(variables, "mpirun", [size, rank, localSize])) return undefined;
  const nodes = whole(variables, size, { least: 1 });
  if (nodes === undefined || nodes.value === 1) return undefined;
  const here = whole(variables, localSize, { least: 1 });
  if (here && here.value > 1) {
    throw new DitrunError(
      "ERR_ALLOCATION",
      `mpirun started ${here.value} processes on this node (${localSize}), but ditrun itself starts the workers of a node: use mpirun --map-by ppr:1:node, or give --nnodes 1 for ${nodes.value} jobs.`,
    );
  }
  const job = text(variables, "PMIX_NAMESPACE")?.value;
  return {
    ...{ source: "Open MPI", nodes, nodeRank: whole(variables, rank, { least: 0, most: nodes.value - 1 }) },
    ...(job !== undefined && { job: `mpi-${job}`, sharesHome: true }),
  };
}
