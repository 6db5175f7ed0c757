import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { parseAllDocuments, parse as parseYaml } from "yaml";
import { z } from "zod";
import { readLine, spelled } from "../../src/cli/command-line.js";
import { commands } from "../../src/cli/commands/index.js";
import { parse } from "../../src/cli/parser.js";
import { packageRoot } from "../../src/paths.js";
import { faults, published, type Schema } from "../unit/launcher/cluster/published.js";

const textOf = (name: string) => readFileSync(join(packageRoot, "examples/serve", name), "utf8");

/** Runs as ditrun would read it, without starting anything. @returns the command's name. */
async function read(words: readonly string[]): Promise<string> {
  const parsed = await parse(spelled(readLine(words, commands)), commands, 80);
  if ("text" in parsed) throw new Error(parsed.text);
  await parsed.command.prepare(parsed.given);
  return parsed.command.name;
}

test("the systemd unit is one, its line is understood, and it waits for the video at hand", async () => {
  const unit = textOf("ditrun-serve.service");
  const [, line = ""] = /^ExecStart=\S+ditrun (.*)$/m.exec(unit) ?? [];
  expect(await read(line.split(" "))).toBe("serve");
  const [, grace] = /--shutdown-timeout (\d+)/.exec(line) ?? [];
  const [, stop] = /^TimeoutStopSec=(\d+)$/m.exec(unit) ?? [];
  expect(Number(stop)).toBeGreaterThan(Number(grace));
  const folder = mkdtempSync(join(tmpdir(), "ditrun-unit-"));
  const file = join(folder, "ditrun-serve.service");
  writeFileSync(file, unit.replace(/^(ExecStart=)\S+/m, "$1/bin/true"));
  const verified = spawnSync("systemd-analyze", ["verify", "--man=no", file], { encoding: "utf8" });
  rmSync(folder, { recursive: true });
  if (verified.error) process.stderr.write("There is no systemd-analyze here: the unit is only read.\n");
  else expect({ status: verified.status, stderr: verified.stderr }).toEqual({ status: 0, stderr: "" });
});

test("the compose file has a server as it is understood, for this machine alone, and time for the video at hand", async () => {
  const service = z.strictObject({
    ...{ image: z.string(), command: z.array(z.string()), ports: z.array(z.string()), restart: z.string() },
    ...{ environment: z.record(z.string(), z.string()), volumes: z.array(z.string()), secrets: z.array(z.string()) },
    ...{ stop_grace_period: z.string().regex(/^\d+s$/), shm_size: z.string(), ulimits: z.object({ memlock: z.int() }) },
    ...{ read_only: z.literal(true), tmpfs: z.array(z.string()), cap_drop: z.tuple([z.literal("ALL")]) },
    security_opt: z.array(z.string()),
    healthcheck: z.strictObject({
      ...{ test: z.array(z.string()), interval: z.string(), timeout: z.string(), retries: z.int() },
      start_period: z.string(),
    }),
    deploy: z.object({ resources: z.object({ reservations: z.object({ devices: z.array(z.looseObject({})) }) }) }),
  });
  const { services, volumes, secrets } = z
    .strictObject({
      services: z.strictObject({ ditrun: service }),
      volumes: z.record(z.string(), z.null()),
      secrets: z.record(z.string(), z.strictObject({ file: z.string() })),
    })
    .parse(parseYaml(textOf("compose.yaml")));
  const { ditrun } = services;
  expect(await read(ditrun.command)).toBe("serve");
  expect(ditrun.ports.every((port) => port.startsWith("127.0.0.1:"))).toBe(true);
  expect(ditrun.volumes.map((volume) => volume.split(":")[0])).toEqual(Object.keys(volumes));
  expect(ditrun.secrets).toEqual(Object.keys(secrets));
  const grace = Number(ditrun.command.find((word) => word.startsWith("--shutdown-timeout="))?.split("=")[1]);
  expect(Number.parseInt(ditrun.stop_grace_period, 10)).toBeGreaterThan(grace);
  expect(ditrun.healthcheck.test.at(-1)).toContain("/healthz");
});

const probe = {
  type: "object",
  properties: {
    httpGet: {
      type: "object",
      required: ["port"],
      properties: { path: { type: "string" }, port: { type: "int-or-string" } },
    },
    ...Object.fromEntries(
      ["periodSeconds", "timeoutSeconds", "failureThreshold", "initialDelaySeconds", "successThreshold"].map((name) => [
        name,
        { type: "integer", minimum: 1 },
      ]),
    ),
  },
} satisfies Schema;

test("the Deployment's pods are as published, its line is understood, and its probes know how long answers take", async () => {
  const [service, deployment] = parseAllDocuments(textOf("kubernetes.yaml")).map((each): unknown => each.toJS());
  const podSchema = published("Job").properties?.spec?.properties?.template;
  if (!podSchema) throw new Error("A Job has a template.");
  const probes = { startupProbe: z.unknown(), readinessProbe: z.unknown(), livenessProbe: z.unknown() };
  const container = z.looseObject({ ...probes, args: z.array(z.string()) });
  const pod = z.looseObject({ terminationGracePeriodSeconds: z.int(), containers: z.tuple([container]) });
  const labels = z.record(z.string(), z.string());
  const parsed = z
    .strictObject({
      apiVersion: z.literal("apps/v1"),
      kind: z.literal("Deployment"),
      metadata: z.strictObject({ name: z.string() }),
      spec: z.strictObject({
        replicas: z.literal(1),
        strategy: z.strictObject({ type: z.literal("Recreate") }),
        selector: z.strictObject({ matchLabels: labels }),
        template: z.strictObject({ metadata: z.strictObject({ labels }), spec: pod }),
      }),
    })
    .parse(deployment);
  const { template, selector } = parsed.spec;
  expect(faults(template, podSchema, "template")).toEqual([]);
  expect(template.metadata.labels).toEqual(selector.matchLabels);
  expect(service).toMatchObject({ apiVersion: "v1", kind: "Service", spec: { selector: selector.matchLabels } });
  const [{ args, startupProbe, readinessProbe, livenessProbe }] = template.spec.containers;
  for (const each of [startupProbe, readinessProbe, livenessProbe]) expect(faults(each, probe, "probe")).toEqual([]);
  expect(readinessProbe).toMatchObject({ httpGet: { path: "/readyz" } });
  // /healthz waits up to 5 s for the workers.
  const answering = z.looseObject({
    httpGet: z.looseObject({ path: z.literal("/healthz") }),
    timeoutSeconds: z.int().min(6),
  });
  for (const each of [startupProbe, livenessProbe]) answering.parse(each);
  expect(await read(args)).toBe("serve");
  const grace = Number(args.find((word) => word.startsWith("--shutdown-timeout="))?.split("=")[1]);
  expect(template.spec.terminationGracePeriodSeconds).toBeGreaterThan(grace);
});
