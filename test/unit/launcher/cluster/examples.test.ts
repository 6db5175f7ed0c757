import { spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { parseAllDocuments } from "yaml";
import { z } from "zod";
import { findAllocation, type HostOptions } from "../../../../src/launcher/cluster/allocation.js";
import type { Variables } from "../../../../src/launcher/cluster/claim.js";
import { packageRoot } from "../../../../src/paths.js";

const podSchema = z.object({
  subdomain: z.string().optional(),
  containers: z.tuple([
    z.object({
      args: z.array(z.string()),
      env: z.tuple([
        z.object({
          name: z.literal("DITRUN_JOB_KEY"),
          valueFrom: z.object({ secretKeyRef: z.object({ name: z.string(), key: z.string() }) }),
        }),
      ]),
    }),
  ]),
});
const jobSchema = z.object({ completions: z.int(), parallelism: z.int(), template: z.object({ spec: podSchema }) });
const manifest = <T>(schema: z.ZodType<T>, file: string, kind: string): T => {
  const text = readFileSync(join(packageRoot, "examples", "kubernetes", file), "utf8");
  const documents = parseAllDocuments(text).map((document): unknown => document.toJS());
  const found = documents.find((each) => z.object({ kind: z.literal(kind) }).safeParse(each).success);
  return schema.parse(found);
};

/** The allocation of a pod: its variables and name as the controller gives them. */
function allocationOf(args: readonly string[], variables: Variables, fqdn: string) {
  const at = args.indexOf("--nnodes");
  const options: HostOptions = at < 0 ? {} : { nnodes: Number(args[at + 1]) };
  return findAllocation(options, { variables, fqdn });
}

test("the Indexed Job's pods find each other", () => {
  const named = z.object({ metadata: z.object({ name: z.string() }), spec: jobSchema });
  const { metadata, spec } = manifest(named, "indexed-job.yaml", "Job");
  const service = z.object({
    metadata: z.object({ name: z.string() }),
    spec: z.object({ clusterIP: z.literal("None"), selector: z.object({ "job-name": z.literal(metadata.name) }) }),
  });
  const { subdomain, containers } = spec.template.spec;
  expect(manifest(service, "indexed-job.yaml", "Service").metadata.name).toBe(subdomain);
  expect(spec.parallelism).toBe(spec.completions);
  const fqdn = `${metadata.name}-1.${subdomain}.default.svc.cluster.local`;
  expect(allocationOf(containers[0].args, { JOB_COMPLETION_INDEX: "1" }, fqdn)).toMatchObject({
    ...{ nodes: spec.completions, nodeRank: 1, leader: `${metadata.name}-0.${subdomain}.default.svc.cluster.local` },
  });
});

test("the JobSet's pods find each other", () => {
  const schema = z.object({
    metadata: z.object({ name: z.string() }),
    spec: z.object({
      network: z.object({ enableDNSHostnames: z.literal(true) }),
      replicatedJobs: z.tuple([
        z.object({ name: z.string(), replicas: z.literal(1), template: z.object({ spec: jobSchema }) }),
      ]),
    }),
  });
  const { metadata, spec } = manifest(schema, "jobset.yaml", "JobSet");
  const [job] = spec.replicatedJobs;
  const name = `${metadata.name}-${job.name}-0`;
  const { completions, template } = job.template.spec;
  const [{ args }] = template.spec.containers;
  expect(allocationOf(args, { JOB_COMPLETION_INDEX: "1" }, `${name}-1.${metadata.name}`)).toMatchObject({
    ...{ nodes: completions, nodeRank: 1, leader: `${name}-0.${metadata.name}` },
  });
});

test("the LeaderWorkerSet's pods find each other", () => {
  const schema = z.object({
    spec: z.object({
      leaderWorkerTemplate: z.object({ size: z.int(), workerTemplate: z.object({ spec: podSchema }) }),
    }),
  });
  const { size, workerTemplate } = manifest(schema, "lws.yaml", "LeaderWorkerSet").spec.leaderWorkerTemplate;
  const variables = {
    LWS_LEADER_ADDRESS: "ditrun-0.ditrun.default",
    LWS_GROUP_SIZE: String(size),
    LWS_WORKER_INDEX: "1",
  };
  expect(allocationOf(workerTemplate.spec.containers[0].args, variables, "ditrun-0-1")).toMatchObject({
    ...{ nodes: size, nodeRank: 1, leader: "ditrun-0.ditrun.default" },
  });
});

test.each(["generate.sbatch", "profile.sbatch"])(
  "%s starts one task on each node, and each command with srun",
  (file) => {
    const path = join(packageRoot, "examples", "slurm", file);
    const text = readFileSync(path, "utf8");
    expect(spawnSync("bash", ["-n", path], { encoding: "utf8" })).toMatchObject({ status: 0, stderr: "" });
    expect(text).toMatch(/^#SBATCH --ntasks-per-node=1$/m);
    // B: is for the shell alone, which ends by a signal that it does not trap.
    expect(text).not.toMatch(/--signal=B:/);
    const commands = text.split("\n").filter((line) => /^(?!#).*\bditrun (?:wan|links|profile)/.test(line));
    expect(commands.length).toBeGreaterThan(0);
    for (const line of commands) expect(line).toMatch(/^srun ditrun /);
  },
);
