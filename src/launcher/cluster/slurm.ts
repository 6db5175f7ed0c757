import { DitrunError } from "../../failure.js";
import { counted } from "../../text.js";
import { type Claim, text, type Variables, whole } from "./claim.js";
import { parseHostlist } from "./hostlist.js";

/** Ports that few programs take, as JAX chooses one for a job (jax/_src/clusters/slurm_cluster.py). */
const FIRST_PORT = 61_440;
const PORTS = 4096;

/**
 * Slurm's job step (srun(1), "OUTPUT ENVIRONMENT VARIABLES"): one task on each node. SLURM_STEP_ID is set by srun alone; without
 * it the process is a batch script's or a shell's, of which there is one.
 * @throws DitrunError where srun started several tasks on a node: each would start all of the node's workers.
 */
export function readSlurm(variables: Variables): Claim | undefined {
  const job = text(variables, "SLURM_JOB_ID");
  const step = text(variables, "SLURM_STEP_ID");
  const tasks =
    whole(variables, "SLURM_STEP_NUM_TASKS", { least: 1 }) ?? whole(variables, "SLURM_NTASKS", { least: 1 });
  if (job === undefined || step === undefined) return undefined;
  if (tasks === undefined) throw missing("SLURM_STEP_NUM_TASKS");
  if (tasks.value === 1) return undefined;
  const nodes =
    whole(variables, "SLURM_STEP_NUM_NODES", { least: 1 }) ?? whole(variables, "SLURM_NNODES", { least: 1 });
  if (nodes === undefined) throw missing("SLURM_STEP_NUM_NODES");
  if (tasks.value !== nodes.value) throw severalTasks(tasks.value, nodes.value);
  const nodeRank = whole(variables, "SLURM_NODEID", { least: 0, most: nodes.value - 1 });
  const list = text(variables, "SLURM_STEP_NODELIST");
  if (nodeRank === undefined) throw missing("SLURM_NODEID");
  if (list === undefined) throw missing("SLURM_STEP_NODELIST");
  const [first = "", ...others] = parseHostlist(list.value);
  if (others.length + 1 !== nodes.value) {
    throw new DitrunError(
      "ERR_ALLOCATION",
      `${list.by} is ${list.value}, which is ${counted(others.length + 1, "host")}, but ${nodes.by} is ${nodes.value}: give --nnodes, --node-rank and --master-addr.`,
    );
  }
  const attempt = text(variables, "SLURM_RESTART_COUNT")?.value ?? "0";
  const number = Number(job.value) + Number(step.value);
  return {
    ...{ source: "Slurm", nodes, nodeRank, leader: { value: first, by: list.by } },
    port: { value: FIRST_PORT + (Number.isSafeInteger(number) ? number % PORTS : 0), by: "SLURM_JOB_ID" },
    job: `slurm-${job.value}.${step.value}-${attempt}`,
    sharesHome: true,
  };
}

/** A sentence where Slurm gave the job several nodes, but srun did not start this process: it is alone. */
export function noteOfBatchScript(variables: Variables): string | undefined {
  const nodes = whole(variables, "SLURM_JOB_NUM_NODES", { least: 1 }) ?? whole(variables, "SLURM_NNODES", { least: 1 });
  if (text(variables, "SLURM_JOB_ID") === undefined || text(variables, "SLURM_STEP_ID") !== undefined) return undefined;
  if (nodes === undefined || nodes.value === 1) return undefined;
  return `Slurm gave this job ${nodes.value} nodes (${nodes.by}), but ditrun was started without srun and takes this one alone; for all of them: srun --ntasks-per-node=1 ditrun ….`;
}

function severalTasks(tasks: number, nodes: number): DitrunError {
  const told = `Slurm started ${tasks} tasks on ${counted(nodes, "node")}, but ditrun itself starts the workers of a node`;
  return new DitrunError(
    "ERR_ALLOCATION",
    `${told}: use srun --nodes=${nodes} --ntasks-per-node=1, with all of the node's GPUs, or give --nnodes 1 for ${tasks} jobs.`,
  );
}

function missing(name: string): DitrunError {
  return new DitrunError(
    "ERR_ALLOCATION",
    `SLURM_STEP_ID is set, but not ${name}: srun sets both. Give --nnodes, --node-rank and --master-addr, or --nnodes 1.`,
  );
}
