import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { execa } from "execa";
import { afterEach, expect } from "vitest";
import { makeJobKey } from "../../src/launcher/nodes/job-key.js";
import { silenceMilliseconds } from "../../src/protocol/node-messages.js";
import { Pids, start } from "./launch.js";
import { Network, testWithNamespaces } from "./namespaces.js";

let network: Network | undefined;
let started: readonly { kill(signal: "SIGKILL"): boolean }[] = [];
afterEach(() => {
  for (const each of started) each.kill("SIGKILL");
  network?.close();
});

/** A launcher on each host, with one fixture worker. */
function launchers(hosts: number, leader: (net: Network) => string, behaviour: Record<number, string> = {}) {
  const net = new Network(hosts);
  network = net;
  const pids = new Pids();
  const key = makeJobKey();
  const launch = (node: number) =>
    start(
      [
        ...["profile", "--device", "cpu", "--nproc", "1", "--cp", String(hosts), "--timeout", "60"],
        ...["--nnodes", String(hosts), "--node-rank", String(node), "--master-addr", leader(net)],
      ],
      { pids, behaviour, shell: net.on(node), env: { DITRUN_JOB_KEY: key, NCCL_SOCKET_IFNAME: "" } },
    ).process;
  const all = Array.from({ length: hosts }, (_, node) => launch(node));
  started = all;
  return { net, pids, all };
}

testWithNamespaces("four hosts meet at the address of the first; a link that is cut ends all of them", async () => {
  const behaviour = { 0: "hang", 1: "hang", 2: "hang", 3: "have a child" };
  const { net, all, pids } = launchers(4, (each) => each.address(0), behaviour);
  await pids.started(5);
  const [worker = 0] = pids.all();
  const variables = readFileSync(`/proc/${worker}/environ`, "utf8").split("\0");
  expect(variables).toContain("MASTER_ADDR=10.77.0.1");
  expect(variables.filter((each) => /^(NCCL|GLOO)_SOCKET_IFNAME=/.test(each)).sort()).toEqual([
    "GLOO_SOCKET_IFNAME=eth0",
    "NCCL_SOCKET_IFNAME==eth0",
  ]);
  net.cut(1);
  const ends = await Promise.all(all);
  expect(ends.map(({ exitCode }) => exitCode)).toEqual([4, 4, 4, 4]);
  const [leader, lost, ...others] = ends.map(({ stderr }) => stderr);
  expect(leader).toMatch(/^ditrun: Host .+ \(node 1\) is lost with rank 1: .* or the link to it is cut\. /m);
  for (const other of others) expect(other).toMatch(/^ditrun: Host .+ \(node 1\) is lost with rank 1: /m);
  expect(lost).toMatch(/^ditrun: Node 0 at 10\.77\.0\.1 has given no sign of life for \d s: /m);
  // Ten seconds are promised for all. By the launchers' own clocks, on which a slow machine does not count, silence takes up to
  // seven of them; a rank's end takes three more, as other tests see.
  for (const stderr of [leader, lost]) {
    const [, ago] = /last heard of (\d+) s ago|no sign of life for (\d+) s/.exec(stderr ?? "")?.filter(Boolean) ?? [];
    expect(Number(ago)).toBeGreaterThanOrEqual(silenceMilliseconds / 1000);
    expect(Number(ago)).toBeLessThanOrEqual(silenceMilliseconds / 1000 + 2);
  }
  await pids.expectGone(5);
});

testWithNamespaces("two hosts over IPv6", async () => {
  const { all, pids } = launchers(2, (net) => net.address6(0));
  const ends = await Promise.all(all);
  expect(ends.map(({ exitCode, stderr }) => [exitCode, stderr])).toEqual([
    [0, expect.stringContaining("at fd77::1, port 29500")],
    [0, expect.stringContaining("registered with node 0 at fd77::1")],
  ]);
  await pids.expectGone(2);
});

/** What srun tells the launcher of a node, whose home all nodes share: no address, and no key. */
const slurmStep = (node: number) => ({
  ...{ SLURM_JOB_ID: "7", SLURM_STEP_ID: "0", SLURM_STEP_NUM_TASKS: "2", SLURM_STEP_NUM_NODES: "2" },
  ...{ SLURM_NODEID: String(node), SLURM_STEP_NODELIST: "no-such-host-[1-2]" },
});

testWithNamespaces(
  "a Slurm step without a key: every rank is told one address of rank 0, and the way out",
  async () => {
    const net = new Network(2);
    network = net;
    const home = mkdtempSync(join(tmpdir(), "ditrun-hosts-"));
    const launch = (node: number) =>
      execa("sh", ["-c", net.on(node), "sh", process.execPath, "bin/ditrun.js", "run", "sh", "-c", script], {
        reject: false,
        env: { ...slurmStep(node), HOME: home, NCCL_SOCKET_IFNAME: "", GLOO_SOCKET_IFNAME: "" },
      });
    const script = "echo $RANK $MASTER_ADDR $NCCL_SOCKET_IFNAME $GLOO_SOCKET_IFNAME";
    const all = [launch(0), launch(1)];
    started = all;
    const ends = await Promise.all(all);
    expect(ends.map(({ exitCode, stdout }) => [exitCode, stdout.replace(/^.*\] /, "")])).toEqual([
      [0, "0 10.77.0.1 =eth0 eth0"],
      [0, "1 10.77.0.1 =eth0 eth0"],
    ]);
    for (const { stderr } of ends)
      expect(stderr).toContain(`Node 0 writes where it is into ${home}/.cache/ditrun/jobs/`);
    rmSync(home, { recursive: true });
  },
);

testWithNamespaces(
  "cp4 × tp2 over two hosts computes what one device does: TCP between them, peer memory within",
  async () => {
    const net = new Network(2);
    network = net;
    const home = mkdtempSync(join(tmpdir(), "ditrun-hosts-"));
    const document = join(home, "result.json");
    const args = [
      ...["accuracy", "--device", "cpu", "--nproc", "4", "--cp", "4", "--tp", "2", "--against", "same"],
      ...["--json", document],
    ];
    const launch = (node: number) =>
      execa("sh", ["-c", net.on(node), "sh", process.execPath, "bin/ditrun.js", ...args], {
        reject: false,
        env: { ...slurmStep(node), HOME: home, DITRUN_KERNELS: "", NCCL_SOCKET_IFNAME: "" },
      });
    const all = [launch(0), launch(1)];
    started = all;
    const ends = await Promise.all(all);
    expect(ends.map(({ exitCode, stderr }) => [exitCode, stderr])).toEqual([
      [0, expect.stringContaining("All 2 hosts are there")],
      [0, expect.stringContaining("Node 0 has ended the job with exit code 0")],
    ]);
    expect(readFileSync(document, "utf8")).toContain("cp4×tp2");
    rmSync(home, { recursive: true });
  },
);
