import { join } from "node:path";
import { counted } from "../../text.js";
import { defineCheck } from "../check.js";
import { namesIn, textOf } from "../host.js";
import { grouped, ranges } from "../words.js";

/** Nodes of memory and cores, and which GPUs hang on which. */
export const numa = defineCheck({
  ...{ name: "numa", section: "cpu", what: "NUMA" },
  look(host) {
    const nodes = namesIn(host, "sys/devices/system/node").filter((name) => /^node\d+$/.test(name)).length;
    const gpuNodes = host
      .gpus()
      .map(({ address }) => Number(textOf(host, join("sys/bus/pci/devices", address, "numa_node")) || -1));
    const [, allowed] = /^Cpus_allowed_list:\s*(\S+)/m.exec(textOf(host, "proc/self/status") ?? "") ?? [];
    return { nodes: Math.max(1, nodes), gpuNodes, allowed: allowed ?? null };
  },
  judge({ nodes, gpuNodes, allowed }) {
    if (nodes === 1) return { state: "ok", value: "one node" };
    const places = [...grouped(gpuNodes, String)].filter(([node]) => node !== "-1");
    const gpus = places.map(([node, which]) => `GPU ${ranges(which)} on node ${node}`).join(", ");
    const may = allowed === null ? "" : `, cores ${allowed}`;
    return { state: "ok", value: `${counted(nodes, "node")}${may}${gpus === "" ? "" : `; ${gpus}`}` };
  },
});
