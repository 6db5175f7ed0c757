import { spawnSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import { test } from "vitest";

function ip(...args: string[]): boolean {
  return spawnSync("ip", args, { stdio: "ignore" }).status === 0;
}

/** Whether this user may make network namespaces here; else tests that need them are skipped with a word. */
function makesNamespaces(): boolean {
  const name = `ditrun-${randomBytes(3).toString("hex")}`;
  const made = ip("netns", "add", name) && ip("-n", name, "link", "set", "lo", "up");
  ip("netns", "del", name);
  return made;
}

export const mayMakeNamespaces = makesNamespaces();
if (!mayMakeNamespaces)
  process.stderr.write("Network namespaces cannot be made here (ip netns add): their tests are skipped.\n");

/** A test that needs the right to make network namespaces. */
export const testWithNamespaces = test.skipIf(!mayMakeNamespaces);

/** Hosts on one network: each a network namespace with an address of its own, behind a switch that can cut it off. */
export class Network {
  readonly #id = randomBytes(3).toString("hex");
  readonly #switch = `ditrun-${this.#id}-sw`;
  readonly #hosts: string[] = [];

  /** @throws Error where a part cannot be made; what was made is removed. */
  constructor(hosts: number) {
    try {
      this.#do("netns", "add", this.#switch);
      this.#do("-n", this.#switch, "link", "add", "br0", "type", "bridge");
      this.#do("-n", this.#switch, "link", "set", "br0", "up");
      for (let host = 0; host < hosts; host++) this.#add(host);
    } catch (error) {
      this.close();
      throw error;
    }
  }

  address(host: number): string {
    return `10.77.0.${host + 1}`;
  }

  address6(host: number): string {
    return `fd77::${host + 1}`;
  }

  /** A line of sh that runs `"$@"` on the host. */
  on(host: number): string {
    return `exec ip netns exec ${this.#hosts[host]} "$@"`;
  }

  /** Cuts the host off: nothing arrives any more, and nobody is told. */
  cut(host: number): void {
    this.#do("-n", this.#switch, "link", "set", `port${host}`, "down");
  }

  close(): void {
    for (const name of [...this.#hosts, this.#switch]) ip("netns", "del", name);
  }

  #add(host: number): void {
    const name = `ditrun-${this.#id}-${host}`;
    this.#hosts.push(name);
    this.#do("netns", "add", name);
    this.#do("-n", this.#switch, "link", "add", `port${host}`, "type", "veth", "peer", "name", "eth0", "netns", name);
    this.#do("-n", this.#switch, "link", "set", `port${host}`, "master", "br0", "up");
    for (const device of ["lo", "eth0"]) this.#do("-n", name, "link", "set", device, "up");
    this.#do("-n", name, "addr", "add", `${this.address(host)}/24`, "dev", "eth0");
    this.#do("-n", name, "addr", "add", `${this.address6(host)}/64`, "dev", "eth0", "nodad");
  }

  #do(...args: string[]): void {
    const { status, stderr } = spawnSync("ip", args, { encoding: "utf8" });
    if (status !== 0) throw new Error(`ip ${args.join(" ")}: ${stderr}`);
  }
}
