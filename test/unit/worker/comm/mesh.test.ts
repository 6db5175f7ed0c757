import { describe, expect, it } from "vitest";
import {
  axes,
  type GroupName,
  groupAxes,
  groupNames,
  type Mesh,
  meshOf,
  ranksAlong,
} from "../../../../src/worker/comm/mesh.js";
import { rangeOf, shares } from "../../../../src/worker/comm/shares.js";
import { chooseTransports } from "../../../../src/worker/comm/transport.js";

const group = (name: GroupName, mesh: Mesh, rank: number) => ranksAlong(groupAxes[name], mesh, rank);

describe("the mesh", () => {
  const mesh = meshOf({ cfg: 2, cp: 3, tp: 2 });

  it("puts tp ranks side by side, then cp, then cfg", () => {
    expect(group("tp", mesh, 9)).toEqual([8, 9]);
    expect(group("cp", mesh, 9)).toEqual([7, 9, 11]);
    expect(group("cfg", mesh, 9)).toEqual([3, 9]);
    expect(group("world", mesh, 9)).toEqual(Array.from({ length: 12 }, (_, rank) => rank));
  });

  it("makes all of cp a ring", () => {
    expect(mesh).toEqual([
      { axis: "tp", size: 2 },
      { axis: "ulysses", size: 1 },
      { axis: "ring", size: 3 },
      { axis: "cfg", size: 2 },
    ]);
    expect(group("ring", mesh, 9)).toEqual(group("cp", mesh, 9));
    expect(group("ulysses", mesh, 9)).toEqual([9]);
  });

  it("has rank = ((cfg · ring + r) · ulysses + u) · tp + t, and cp is ring × ulysses", () => {
    const sizes = { tp: 2, ulysses: 3, ring: 2, cfg: 2 };
    const whole = axes.map((axis) => ({ axis, size: sizes[axis] }));
    const rankOf = (cfg: number, r: number, u: number, t: number) => ((cfg * 2 + r) * 3 + u) * 2 + t;
    const rank = rankOf(1, 0, 2, 1);
    expect(group("tp", whole, rank)).toEqual([rankOf(1, 0, 2, 0), rank]);
    expect(group("ulysses", whole, rank)).toEqual([0, 1, 2].map((u) => rankOf(1, 0, u, 1)));
    expect(group("ring", whole, rank)).toEqual([rank, rankOf(1, 1, 2, 1)]);
    expect(group("cfg", whole, rank)).toEqual([rankOf(0, 0, 2, 1), rank]);
    expect(group("cp", whole, rank)).toEqual([0, 1].flatMap((r) => [0, 1, 2].map((u) => rankOf(1, r, u, 1))));
  });

  it("gives every rank of a group the same group, with itself in it", () => {
    for (const name of groupNames) {
      for (let rank = 0; rank < 12; rank++) {
        const ranks = group(name, mesh, rank);
        expect(ranks).toContain(rank);
        for (const peer of ranks) expect(group(name, mesh, peer)).toEqual(ranks);
      }
    }
  });
});

describe("the transport of each axis", () => {
  const sizes = { cfg: 2, cp: 2, tp: 2 };
  const choose = (hosts: readonly number[], transport: "auto" | "peer" | "nccl", mesh = sizes) =>
    chooseTransports({ name: "a plan", mesh, ring: { transport } }, hosts);
  const spread = (count: number) => Array.from({ length: 8 }, (_, rank) => Math.floor((rank * count) / 8));

  it("is peer memory where every group of the axis is on one host, else NCCL", () => {
    const all = (transport: string) => Object.fromEntries(groupNames.map((name) => [name, transport]));
    expect(choose(spread(1), "auto")).toEqual(all("peer"));
    const peersIn = (...names: string[]) => ({
      ...all("nccl"),
      ...Object.fromEntries(names.map((name) => [name, "peer"])),
    });
    // A group of one needs no transport.
    expect(choose(spread(2), "auto")).toEqual(peersIn("cp", "ring", "ulysses", "tp"));
    expect(choose(spread(4), "auto")).toEqual(peersIn("ulysses", "tp"));
    // One group that spans hosts is enough.
    expect(choose([0, 0, 0, 0, 0, 0, 0, 1], "auto")).toEqual(peersIn("ulysses"));
    expect(choose(spread(1), "nccl")).toEqual(all("nccl"));
  });

  it("is NCCL within a host as well, where more ranks come together than peer memory takes", () => {
    const one = (ranks: number) => Array<number>(ranks).fill(0);
    const cp = (ranks: number) => choose(one(ranks), "auto", { cfg: 1, cp: ranks, tp: 1 });
    expect([cp(16).cp, cp(16).world]).toEqual(["peer", "peer"]);
    expect([cp(17).cp, cp(17).ring, cp(17).world]).toEqual(["nccl", "nccl", "peer"]);
    const mesh = { cfg: 2, cp: 9, tp: 2 };
    expect(choose(one(36), "auto", mesh)).toMatchObject({ world: "nccl", cfg: "peer", cp: "peer", tp: "peer" });
  });

  it("cannot be peer memory between hosts, and the group is named", () => {
    const refusal = (ranks: string, group: string, hosts: number) =>
      `Plan a plan has ring.transport peer, but ranks ${ranks} of its ${group} group are on ${hosts} hosts: use auto or nccl.`;
    expect(() => choose(spread(2), "peer")).toThrow(refusal("0, 4", "cfg", 2));
    expect(() => choose(spread(4), "peer")).toThrow(refusal("0, 2", "cp", 2));
    expect(() => choose(spread(8), "peer")).toThrow(refusal("0, 1", "tp", 2));
    expect(() => choose(spread(2), "peer", { cfg: 1, cp: 4, tp: 2 })).toThrow(refusal("0, 2, 4, 6", "cp", 2));
    expect(choose(spread(1), "peer").world).toBe("peer");
  });
});

describe("shares", () => {
  it("adds up, in blocks that differ by one at most", () => {
    for (const [total, ranks] of [
      [256, 3],
      [256, 5],
      [7, 7],
      [1000, 8],
      [65536, 6],
    ] as const) {
      const parts = shares(total, ranks);
      expect(parts.reduce((sum, part) => sum + part, 0)).toBe(total);
      expect(Math.max(...parts) - Math.min(...parts)).toBeLessThanOrEqual(1);
      const last = rangeOf(parts, ranks - 1);
      expect(last.start + last.count).toBe(total);
    }
  });
});
