// How long simulated hosts and workers take to meet, and what goes through node 0: launchers and workers are functions of a few
// processes, but leader, followers, stores and sockets are the product's (simulated-hosts.ts).
//   npx tsx bench/rendezvous.ts [--hosts 32] [--per-host 8] [--processes 2]
import { parseArgs } from "node:util";
import { execa } from "execa";
import { makeJobKey } from "../src/launcher/nodes/job-key.js";
import { followAll, leadAll } from "./simulated-hosts.js";

const { values } = parseArgs({
  options: {
    hosts: { type: "string", default: "32" },
    "per-host": { type: "string", default: "8" },
    processes: { type: "string", default: "2" },
    // Of the processes that this one starts.
    port: { type: "string" },
    first: { type: "string", default: "1" },
    last: { type: "string", default: "1" },
  },
});
const hosts = Number(values.hosts);
const perHost = Number(values["per-host"]);
const processes = Math.min(Number(values.processes), hosts);

if (values.port === undefined) await lead();
else await follow(Number(values.port));

async function follow(port: number): Promise<void> {
  const key = process.env.DITRUN_JOB_KEY ?? "";
  const codes = await followAll({ port, key, hosts, perHost }, Number(values.first), Number(values.last));
  process.exit(Math.max(...codes));
}

async function lead(): Promise<void> {
  const key = makeJobKey();
  const [node = "", ...options] = [
    process.execPath,
    ...process.execArgv.filter((each) => !/cpu-prof/.test(each)),
    process.argv[1] ?? "",
  ];
  const follower = (port: number, index: number) => {
    const first = 1 + Math.floor((index * hosts) / processes);
    const last = Math.floor(((index + 1) * hosts) / processes);
    const place = ["--port", port, "--first", first, "--last", last, "--hosts", hosts, "--per-host", perHost];
    return execa(node, [...options, ...place.map(String)], {
      stdio: ["ignore", "inherit", "inherit"],
      env: { DITRUN_JOB_KEY: key },
    });
  };
  const measured = await leadAll({ key, hosts, perHost }, (port) =>
    Promise.all(Array.from({ length: processes }, (_, index) => follower(port, index))),
  );
  const { hostsSeconds, workersSeconds, endSeconds, traffic, memory } = measured;
  const { user, system } = process.cpuUsage();
  const ranks = hosts * perHost;
  const each = (count: number, of: number) => (count / of).toFixed(2);
  console.log(`${ranks} workers on ${hosts} hosts, in ${processes} processes and node 0's`);
  console.log(`all launchers there   ${hostsSeconds.toFixed(2)} s, of which those processes take some to start`);
  console.log(`all workers have met  ${workersSeconds.toFixed(2)} s`);
  console.log(`all have ended        ${endSeconds.toFixed(2)} s`);
  console.log(
    `messages at node 0    ${traffic.messages}, ${each(traffic.messages, ranks)} a worker, ${each(traffic.messages, hosts)} a host`,
  );
  console.log(
    `bytes at node 0       ${traffic.bytes}, ${each(traffic.bytes, ranks)} a worker, ${each(traffic.bytes, hosts)} a host`,
  );
  console.log(`memory of node 0      ${memory.toFixed(0)} MiB`);
  console.log(`processor of node 0   ${((user + system) / 1e6).toFixed(2)} s, its own start included`);
  process.exit(0);
}
