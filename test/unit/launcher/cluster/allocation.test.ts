import { describe, expect, test } from "vitest";
import { findAllocation, type HostOptions } from "../../../../src/launcher/cluster/allocation.js";
import type { Variables } from "../../../../src/launcher/cluster/claim.js";
import { parseEndpoint, tcpOf } from "../../../../src/launcher/cluster/endpoint.js";
import { parseHostlist } from "../../../../src/launcher/cluster/hostlist.js";

const step = {
  SLURM_JOB_ID: "77",
  SLURM_STEP_ID: "3",
  SLURM_STEP_NUM_TASKS: "2",
  SLURM_STEP_NUM_NODES: "2",
  SLURM_NODEID: "1",
  SLURM_STEP_NODELIST: "n[007-008]",
  SLURM_STEP_TASKS_PER_NODE: "1(x2)",
};
const lws = { LWS_LEADER_ADDRESS: "v-0.v.default", LWS_GROUP_SIZE: "4", LWS_WORKER_INDEX: "2" };
const mpi = {
  OMPI_COMM_WORLD_SIZE: "2",
  OMPI_COMM_WORLD_RANK: "1",
  OMPI_COMM_WORLD_LOCAL_SIZE: "1",
  PMIX_NAMESPACE: "prterun-a-9@1",
};
const pet = {
  PET_NNODES: "2",
  PET_NODE_RANK: "1",
  PET_MASTER_ADDR: "job-node-0-0.job",
  PET_MASTER_PORT: "29500",
  PET_NPROC_PER_NODE: "8",
};

function find(variables: Variables, options: HostOptions = {}, fqdn = "host.example") {
  return findAllocation(options, { variables, fqdn });
}

describe("one host", () => {
  test.each<[string, Variables, HostOptions]>([
    ["nothing is said", {}, {}],
    ["--nnodes 1", lws, { nnodes: 1 }],
    ["--standalone", step, { standalone: true }],
    ["an address alone", { MASTER_ADDR: "10.0.0.1", MASTER_PORT: "1" }, { masterAddr: "127.0.0.1" }],
    ["one task of a larger job: srun --pty bash", { ...step, SLURM_STEP_NUM_TASKS: "1", SLURM_NODEID: "0" }, {}],
    ["mpirun -n 1", { ...mpi, OMPI_COMM_WORLD_SIZE: "1", OMPI_COMM_WORLD_RANK: "0" }, {}],
    ["a rank that is alone", { RANK: "0", WORLD_SIZE: "1" }, {}],
    ["PET_NNODES=1", { PET_NNODES: "1", PET_NODE_RANK: "0" }, {}],
    ["the only pod of an Indexed Job", { JOB_COMPLETION_INDEX: "0", PET_NNODES: "1" }, {}],
  ])("%s", (_name, variables, options) => {
    expect(find(variables, options)).toMatchObject({ nodes: 1, nodeRank: 0, why: "" });
  });

  test("a batch script with several nodes is told that it is alone, and how to have all", () => {
    const { nodes, why } = find({ SLURM_JOB_ID: "77", SLURM_JOB_NUM_NODES: "2", SLURM_NODEID: "0", SLURM_PROCID: "0" });
    expect(nodes).toBe(1);
    expect(why).toContain("SLURM_JOB_NUM_NODES");
    expect(why).toContain("srun --ntasks-per-node=1 ditrun");
  });
});

describe("several hosts", () => {
  test.each<[string, Variables, HostOptions, object]>([
    ["options", {}, { nnodes: 2, nodeRank: 1, masterAddr: "a" }, { nodes: 2, nodeRank: 1, leader: "a", port: 29500 }],
    [
      "an endpoint, without a number",
      {},
      { nnodes: 2, rdzvEndpoint: "[fd00::1]", rdzvId: "x" },
      { nodes: 2, nodeRank: undefined, leader: "fd00::1", port: 29400, job: "x" },
    ],
    ["Slurm", step, {}, { nodes: 2, nodeRank: 1, leader: "n007", port: 61520, job: "slurm-77.3-0", sharesHome: true }],
    ["Slurm, requeued", { ...step, SLURM_RESTART_COUNT: "2" }, {}, { job: "slurm-77.3-2" }],
    ["Open MPI", mpi, {}, { nodes: 2, nodeRank: 1, leader: undefined, port: undefined, sharesHome: true }],
    ["Open MPI, with an address", mpi, { masterAddr: "a" }, { nodes: 2, nodeRank: 1, leader: "a", port: 29500 }],
    [
      "Open MPI within a step of Slurm",
      { ...step, ...mpi },
      {},
      { nodes: 2, nodeRank: 1, leader: "n007", job: "mpi-prterun-a-9@1" },
    ],
    ["LeaderWorkerSet", lws, {}, { nodes: 4, nodeRank: 2, leader: "v-0.v.default", port: 29500 }],
    ["Kubeflow", pet, {}, { nodes: 2, nodeRank: 1, leader: "job-node-0-0.job", port: 29500, workers: 8 }],
    ["Kubeflow, MIN:MAX", { ...pet, PET_NNODES: "2:2" }, {}, { nodes: 2 }],
    [
      "c10d's variables",
      { PET_NNODES: "2", PET_RDZV_ENDPOINT: "a:1", PET_RDZV_ID: "j" },
      {},
      { nodeRank: undefined, leader: "a", port: 1, job: "j" },
    ],
    ["an option before the environment", { ...step, ...lws }, { nnodes: 3, nodeRank: 2 }, { nodes: 3, nodeRank: 2 }],
    ["a number of the environment's", step, { nnodes: 2, masterAddr: "b" }, { nodeRank: 1, leader: "b" }],
    [
      "options alone, whatever the environment",
      { RANK: "1", WORLD_SIZE: "2" },
      { nnodes: 2, nodeRank: 1, masterAddr: "a" },
      { nodes: 2 },
    ],
  ])("%s", (_name, variables, options, expected) => {
    expect(find(variables, options)).toMatchObject(expected);
  });

  test("a pod of an Indexed Job finds pod 0 in its own domain", () => {
    const found = find({ JOB_COMPLETION_INDEX: "11" }, { nnodes: 12 }, "wan-11.wan.default.svc.cluster.local");
    expect(found).toMatchObject({ nodes: 12, nodeRank: 11, leader: "wan-0.wan.default.svc.cluster.local" });
    expect(find({ JOB_COMPLETION_INDEX: "1" }, { nnodes: 2 }, "set-workers-0-1.set").leader).toBe(
      "set-workers-0-0.set",
    );
  });

  test("what is believed stands in a sentence, with the names of those who say so", () => {
    expect(find(step).why).toBe(
      "This is node 1 of 2, by Slurm (SLURM_STEP_NUM_NODES, SLURM_NODEID, SLURM_STEP_NODELIST).",
    );
    expect(find(step, { nnodes: 2, masterAddr: "b" }).why).toBe(
      "This is node 1 of 2, by the command line and Slurm (--nnodes, SLURM_NODEID, --master-addr).",
    );
  });
});

describe("refused, with the names of what is wrong", () => {
  const without = (variables: Variables, name: string): Variables => ({ ...variables, [name]: undefined });

  test.each<[string, Variables, HostOptions, string[]]>([
    [
      "four tasks on one node",
      { ...step, SLURM_STEP_NUM_TASKS: "4", SLURM_STEP_NUM_NODES: "1" },
      {},
      ["4 tasks on 1 node", "--ntasks-per-node=1"],
    ],
    [
      "one task for each GPU",
      { ...step, SLURM_STEP_NUM_TASKS: "16" },
      {},
      ["16 tasks on 2 nodes", "--ntasks-per-node=1"],
    ],
    ["a step without its nodes", without(step, "SLURM_STEP_NODELIST"), {}, ["SLURM_STEP_NODELIST"]],
    ["a step without its number", without(step, "SLURM_NODEID"), {}, ["SLURM_NODEID"]],
    ["a step without tasks", without(step, "SLURM_STEP_NUM_TASKS"), {}, ["SLURM_STEP_NUM_TASKS"]],
    [
      "a list of another length",
      { ...step, SLURM_STEP_NODELIST: "n1" },
      {},
      ["n1", "1 host", "SLURM_STEP_NUM_NODES is 2"],
    ],
    ["a list that is none", { ...step, SLURM_STEP_NODELIST: "n[1-" }, {}, ["n[1-", "--master-addr"]],
    [
      "mpirun with several processes on a node",
      { ...mpi, OMPI_COMM_WORLD_LOCAL_SIZE: "2" },
      {},
      ["OMPI_COMM_WORLD_LOCAL_SIZE", "ppr:1:node"],
    ],
    ["half of mpirun's", without(mpi, "OMPI_COMM_WORLD_RANK"), {}, ["OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"]],
    ["mpirun without a name for the job", without(mpi, "PMIX_NAMESPACE"), {}, ["where node 0 is", "--master-addr"]],
    ["half a LeaderWorkerSet", without(lws, "LWS_GROUP_SIZE"), {}, ["not LWS_GROUP_SIZE", "LWS_LEADER_ADDRESS"]],
    ["an index beyond the group", { ...lws, LWS_WORKER_INDEX: "4" }, {}, ["LWS_WORKER_INDEX", "from 0 to 3"]],
    ["half of Kubeflow's: which", without(pet, "PET_NODE_RANK"), {}, ["PET_NNODES is 2", "--node-rank"]],
    ["half of Kubeflow's: where", without(pet, "PET_MASTER_ADDR"), {}, ["PET_NNODES is 2", "--master-addr"]],
    ["half of Kubeflow's: how many", without(pet, "PET_NNODES"), {}, ["PET_NODE_RANK is 1", "--nnodes"]],
    ["an elastic job", { ...pet, PET_NNODES: "1:4" }, {}, ["PET_NNODES is 1:4", "fixed"]],
    ["no number", { ...pet, PET_NNODES: "two" }, {}, ['PET_NNODES is "two"']],
    ["a port that is none", { ...pet, PET_MASTER_PORT: "70000" }, {}, ["PET_MASTER_PORT", "65535"]],
    [
      "two sources with two counts",
      { ...step, ...pet, PET_NNODES: "4" },
      {},
      ["SLURM_STEP_NUM_NODES", "PET_NNODES", "--nnodes"],
    ],
    [
      "two sources with two numbers",
      { ...lws, ...pet, PET_NNODES: "4" },
      {},
      ["LWS_WORKER_INDEX", "PET_NODE_RANK", "--node-rank"],
    ],
    ["pod 0 of nobody knows how many", { JOB_COMPLETION_INDEX: "0" }, {}, ["JOB_COMPLETION_INDEX is 0", "--nnodes"]],
    [
      "pod 1 of one",
      { JOB_COMPLETION_INDEX: "1", PET_NNODES: "1" },
      {},
      ["JOB_COMPLETION_INDEX is 1", "PET_NNODES is 1"],
    ],
    [
      "a pod whose name has no index",
      { JOB_COMPLETION_INDEX: "1" },
      { nnodes: 2 },
      ["where node 0 is", "--master-addr"],
    ],
    [
      "a rank of torchrun's",
      { RANK: "3", WORLD_SIZE: "8", TORCHELASTIC_RUN_ID: "x" },
      {},
      ["RANK is 3", "torchrun", "once on each host"],
    ],
    ["a rank of somebody's", { RANK: "0", WORLD_SIZE: "8" }, {}, ["WORLD_SIZE is 8", "--nnodes 1"]],
    ["hosts without an address", {}, { nnodes: 2, nodeRank: 0 }, ["--nnodes is 2", "--master-addr"]],
    ["hosts without a number", {}, { nnodes: 2, masterAddr: "a" }, ["--nnodes is 2", "--node-rank"]],
    ["a number without hosts", {}, { nodeRank: 1 }, ["--node-rank is 1", "--nnodes"]],
    ["a number beyond", {}, { nnodes: 2, nodeRank: 2, masterAddr: "a" }, ["--node-rank is 2", "from 0 to 1"]],
    ["the second of one", {}, { nnodes: 1, nodeRank: 1 }, ["--node-rank is 1", "--nnodes is 1"]],
    ["an endpoint that is none", {}, { nnodes: 2, rdzvEndpoint: "a:b:c" }, ["--rdzv-endpoint", "a:b:c"]],
  ])("%s", (_name, variables, options, words) => {
    const message = messageOf(() => find(variables, options));
    for (const word of words) expect(message).toContain(word);
  });
});

test.each([
  ["n1", ["n1"]],
  ["n[001,007-009]", ["n001", "n007", "n008", "n009"]],
  ["n[9-11]", ["n9", "n10", "n11"]],
  ["gpu-a,rack[1-2]n[01-02]-ib,b", ["gpu-a", "rack1n01-ib", "rack1n02-ib", "rack2n01-ib", "rack2n02-ib", "b"]],
])("hostlist %s", (list, hosts) => {
  expect(parseHostlist(list)).toEqual(hosts);
});

test.each(["", "n[", "n[1-2", "n[2-1]", "n[a]", "n]1", "n1,,n2", "n[1-99999999]", "n[1-9999]m[1-9999]", "n[]"])(
  "no hostlist: %s",
  (list) => {
    expect(messageOf(() => parseHostlist(list))).toContain("no list of Slurm's hosts");
  },
);

test.each([
  ["host", { host: "host", port: undefined }, "tcp://host:7"],
  ["a.b:123", { host: "a.b", port: 123 }, "tcp://a.b:7"],
  ["10.0.0.1:65535", { host: "10.0.0.1", port: 65535 }, "tcp://10.0.0.1:7"],
  ["[2001:db8::1]:99", { host: "2001:db8::1", port: 99 }, "tcp://[2001:db8::1]:7"],
  ["2001:db8::1", { host: "2001:db8::1", port: undefined }, "tcp://[2001:db8::1]:7"],
])("endpoint %s", (text, expected, tcp) => {
  const found = parseEndpoint(text, "--rdzv-endpoint");
  expect(found).toEqual(expected);
  expect(tcpOf({ ...found, port: 7 })).toBe(tcp);
});

test.each(["", "host :123", "a:65536", "a:0", "[host]:1", "a:", ":1", "tcp://a:1"])("no endpoint: %s", (text) => {
  expect(messageOf(() => parseEndpoint(text, "--rdzv-endpoint"))).toContain("--rdzv-endpoint");
});

function messageOf(call: () => unknown): string {
  try {
    call();
  } catch (error) {
    expect(error).toMatchObject({ code: "ERR_ALLOCATION", exitCode: 2 });
    return error instanceof Error ? error.message : "";
  }
  throw new Error("It was not refused.");
}
