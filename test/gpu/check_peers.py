"""Sums, gathers and exchanges over peer memory between real processes, against the same additions in numpy, bit by bit.

    python3 test/gpu/check_peers.py MODULE [--ranks 2,3,4,8] [--gpus 1] [--every 1]

Ranks are dealt round over the GPUs. Each case queues its calls without waiting between them, every one on other data and each rank
held up for another while, then captures them and replays the graph on new data: a block that is read too late or written too early
shows. Works with the CPU module as well.
"""
import argparse
import sys

import numpy as np

from ditrun_abi import BF16, F32
from peer_ranks import Rank, child, run

SHARE_UNIT = 8


def to_bits(values, dtype):
    """float32 as stored in dtype, rounded to nearest even."""
    if dtype == F32:
        return values.astype(np.float32)
    bits = values.astype(np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def from_bits(stored, dtype):
    return stored if dtype == F32 else (stored.astype(np.uint32) << 16).view(np.float32)


def random(seed, count, dtype):
    return to_bits(np.random.default_rng(seed).standard_normal(count, dtype=np.float32), dtype)


def gate_of(case):
    """Powers of two, so that a product is exact whether or not it is fused with the addition."""
    return np.exp2(np.random.default_rng(9).integers(-3, 4, case["columns"])).astype(np.float32)


def expected(case, blocks, base, bias):
    """The sum in the header's order and roundings."""
    first, count, ranks = case["first"], case["count"], len(blocks)
    terms = [from_bits(block, case["source"]) for block in blocks]
    total = np.zeros(count, np.float32)
    shared = case["total"] // SHARE_UNIT * SHARE_UNIT if case["shots"] == 2 else 0
    if shared:
        share = np.zeros(shared, np.float32)
        for term in terms:
            share += term[:shared]
        total[:shared] = from_bits(to_bits(share, case["source"]), case["source"])
    for term in terms:
        total[shared:] += term[first + shared:first + count]
    if base is not None:
        total += np.resize(from_bits(bias, case["biasDtype"]), count)
        if case["gated"]:
            total *= np.resize(gate_of(case), count)
        total += from_bits(base, case["dtype"])
    return to_bits(total, case["dtype"])


ROUNDS = 4  # calls of one case, queued at once
REPLAYS = 2


def check_exchange(rank, case, delay):
    """Whether halos hold the neighbours' rows and nothing else has changed, call after call."""
    rows, row_bytes = case["exchange"]
    size = rows * 4 * row_bytes
    volumes = [rank.module.malloc(size, 0) for _ in range(ROUNDS)]

    def volume(turn, k, r):
        return np.random.default_rng([turn, k, r]).integers(0, 256, (rows, 4, row_bytes), dtype=np.uint8)

    def queue():
        for k in range(ROUNDS):
            rank.module.fill_zero(delay, int(np.random.default_rng([rank.rank, k]).integers(1, 1 << 24)), rank.stream)
            rank.exchange(volumes[k], rows, row_bytes)

    found = []
    graph = None
    for turn in range(REPLAYS + 1):
        for k in range(ROUNDS):
            rank.put(volumes[k], volume(turn, k, rank.rank))
        if turn == 0:
            queue()
        else:
            rank.module.graph_launch(graph, rank.stream)
        for k in range(ROUNDS):
            want = volume(turn, k, rank.rank)
            if rank.rank > 0:
                want[:, 0] = volume(turn, k, rank.rank - 1)[:, 2]
            if rank.rank < rank.ranks - 1:
                want[:, 3] = volume(turn, k, rank.rank + 1)[:, 1]
            bad = np.argwhere(rank.get(volumes[k], want) != want)
            if bad.size:
                found.append(f"turn {turn} call {k}: {len(bad)} of {want.nbytes} bytes, the first at {bad[0]}")
        if turn == 0:
            rank.module.capture_begin(rank.stream)
            queue()
            graph = rank.module.capture_end(rank.stream)
    rank.module.graph_destroy(graph)
    for address in volumes:
        rank.module.free(address)
    return found


def check_case(rank, case, delay):
    """Whether every call of the case gives the expected bits, and gathers give the very bytes."""
    if "exchange" in case:
        return check_exchange(rank, case, delay)
    own, ranks = rank.rank, rank.ranks
    gather = "lengths" in case
    rows = case.get("rows")
    if rows:  # reduce-scatter: this rank's rows
        case = {**case, "first": sum(rows[:own]) * case["columns"], "count": rows[own] * case["columns"]}
    size = max(case["lengths"]) if gather else case["total"]
    dtype = None if gather else case["dtype"]
    random_source = (lambda seed: np.random.default_rng(seed).integers(0, 256, size, dtype=np.uint8)) if gather else (lambda seed: random(seed, size, case["source"]))
    sources = [rank.module.malloc(max(16, size * 4), 0) for _ in range(ROUNDS)]
    outs = [rank.module.malloc(max(16, sum(case["lengths"]) if gather else case["count"] * 4), 0) for _ in range(ROUNDS)]
    base = bias = None
    if not gather and case["base"]:
        base, bias = random([7, own], case["count"], dtype), random(8, case["columns"], case["biasDtype"])
    bias_at = rank.made(bias) if bias is not None else 0
    base_at = rank.made(base) if base is not None else 0
    gate_at = rank.made(gate_of(case)) if base is not None and case["gated"] else 0

    def queue():
        for k in range(ROUNDS):
            rank.module.fill_zero(delay, int(np.random.default_rng([own, k]).integers(1, 1 << 24)), rank.stream)
            rank.module.copy(rank.blocks[own], sources[k], random_source(0).nbytes, rank.stream)
            if gather:
                rank.gather_bytes(outs[k], case["lengths"])
            else:
                if base is not None and case["inPlace"]:
                    rank.module.copy(outs[k], base_at, max(base.nbytes, 4), rank.stream)
                rank.sum(case, outs[k], outs[k] if base is not None and case["inPlace"] else base_at, bias_at, gate_at)

    def wrong(turn):
        found = []
        for k in range(ROUNDS):
            blocks = [random_source([turn, k, r]) for r in range(ranks)]
            want = np.concatenate([b[:n] for b, n in zip(blocks, case["lengths"])]) if gather else expected(case, blocks, base, bias)
            got = rank.get(outs[k], want)
            bad = np.flatnonzero(got.view(np.uint8) != want.view(np.uint8))
            if bad.size:
                found.append(f"turn {turn} call {k}: {bad.size} of {want.nbytes} bytes, the first at {bad[0]}")
            rank.put(outs[k], np.full(max(want.nbytes, 4), 0xFF, np.uint8))
        return found

    def fill(turn):
        for k in range(ROUNDS):
            rank.put(sources[k], random_source([turn, k, own]))

    fill(0)
    queue()
    found = wrong(0)
    rank.module.capture_begin(rank.stream)
    queue()
    graph = rank.module.capture_end(rank.stream)
    for turn in range(1, REPLAYS + 1):
        fill(turn)
        rank.module.graph_launch(graph, rank.stream)
        found += wrong(turn)
    rank.module.stream_synchronize(rank.stream)
    rank.module.graph_destroy(graph)
    for address in [*sources, *outs, *([bias_at] if bias_at else []), *([base_at] if base_at else []), *([gate_at] if gate_at else [])]:
        rank.module.free(address)
    return found


def cases_for(ranks, largest):
    plain = {"first": 0, "base": False, "inPlace": False, "gated": False, "shots": 1}
    for dtype, source in ((F32, F32), (F32, BF16), (BF16, BF16)):
        names = f"{'f32' if dtype == F32 else 'bf16'} of {'f32' if source == F32 else 'bf16'}"
        for rows, columns in ((1, 1), (3, 5), (1, 8), (13, 264), (129, 1003), (largest // 1536, 1536)):
            total = rows * columns
            for base, in_place, gated in ((False, False, False), (True, False, False), (True, True, True)):
                for shots in (1, 2):
                    if shots == 2 and columns % SHARE_UNIT:
                        continue
                    yield f"sum {names} {rows}x{columns} base {base}{' in place, gated' if in_place else ''}, {shots} shots", {
                        **plain, "dtype": dtype, "source": source, "total": total, "count": total, "columns": columns, "base": base, "inPlace": in_place, "gated": gated,
                        "biasDtype": BF16 if gated else dtype, "shots": shots}
        for all_rows in (ranks * 5, ranks * 31 + 1, ranks - 1):
            rows = [(r + 1) * all_rows // ranks - r * all_rows // ranks for r in range(ranks)]
            yield f"scatter {names} {rows}", {**plain, "dtype": dtype, "source": source, "total": all_rows * 264, "columns": 264, "base": True, "inPlace": True,
                                                "biasDtype": dtype, "rows": rows}
    for unit in (1, 4, 16, 4096):
        yield f"gather of {unit}", {"lengths": [unit * (3 + 5 * r) for r in range(ranks)]}
    for rows, row_bytes in ((1, 1), (3, 12), (5, 16 * 7), (4, 16 * 13001), (7, 999)):
        yield f"exchange of {rows} rows of {row_bytes} bytes", {"exchange": (rows, row_bytes)}
    yield "gather with an empty part", {"lengths": [0 if r == 1 else 4096 for r in range(ranks)]}
    yield "gather, large", {"lengths": [largest // ranks * 4] * ranks}


def check(path, rank, ranks, gpus, link, largest, every):
    cases = dict(list(cases_for(ranks, largest))[::every])
    block_bytes = max(max(case["lengths"]) if "lengths" in case else case["total"] * 4 if "total" in case else case["exchange"][0] * case["exchange"][1] for case in cases.values())
    self = Rank(path, rank, ranks, gpus, link, block_bytes)
    delay = self.module.malloc(1 << 24, 0)
    failed = []
    for name, case in cases.items():
        failed += [f"rank {rank} of {ranks}: {name}: {why}" for why in check_case(self, case, delay)]
    self.close()
    return len(cases), failed


def check_rank(link, rank, ranks, path, gpus, largest, every):
    child(link, lambda: check(path, rank, ranks, gpus, link, largest, every))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("module")
    parser.add_argument("--ranks", default="2,3,4,8")
    parser.add_argument("--gpus", type=int, default=1)
    parser.add_argument("--largest", type=int, default=1 << 20, help="elements of the largest sums")
    parser.add_argument("--every", type=int, default=1, help="only every so many of the cases")
    options = parser.parse_args()
    bad = 0
    for ranks in [int(text) for text in options.ranks.split(",")]:
        results = run(check_rank, ranks, options.module, options.gpus, options.largest, options.every)
        failed = [line for _, lines in results for line in lines]
        bad += len(failed)
        print(f"{ranks} ranks: {results[0][0]} cases, {len(failed)} failures", *failed[:8], sep="\n  ", flush=True)
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
