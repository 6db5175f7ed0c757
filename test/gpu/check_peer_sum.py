"""Sums, gathers and exchanges over peer memory between real processes, against the same additions in numpy, bit by bit.

    python3 test/gpu/check_peer_sum.py MODULE [--ranks 2,3,4,8] [--gpus 1] [--every 1] [--times MODULE,MODULE,…]

Ranks are dealt round over the GPUs. Each case queues its calls without waiting between them, every one on other data and each rank
held up for another while, then captures them and replays the graph on new data: a block that is read too late or written too early
shows. With --times, sums and gathers of each module are timed between all ranks instead (one rank a GPU, or the times mean nothing).
"""
import argparse
import ctypes
import multiprocessing
import sys
import traceback
from ctypes import byref, c_float, c_int64, c_uint64, create_string_buffer

import numpy as np

from ditrun_abi import BF16, F32, PEER, Module, Neighbour, PeerExchange, PeerSum

NAMES = """device_open device_close malloc free peer_export peer_open peer_close upload download copy fill_zero stream_create stream_synchronize
event_create event_record event_elapsed capture_begin capture_end graph_launch graph_destroy peer_sum peer_gather peer_exchange""".split()
PEER_BLOCKS, SHARE_UNIT = 128, 8
BYTES = {F32: 4, BF16: 2}


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


class Rank:
    """One process of a group: its module, its stream, and the blocks and signals of all ranks."""

    def __init__(self, path, rank, ranks, gpus, link, block_bytes):
        self.rank, self.ranks, self.link = rank, ranks, link
        self.module = Module(path, NAMES)
        self.module.device_open(rank % gpus)
        self.stream = self.module.stream_create(0)
        # The group's signals, those of the pairs above and below, the block, and four slots of rows, of the same bytes.
        self.pair_signals = PEER_BLOCKS * ranks * 4
        self.signal_bytes = self.pair_signals + 2 * 2 * PEER_BLOCKS * 4
        self.block_bytes = (block_bytes + 1023) // 1024 * 1024
        self.heap = self.module.malloc(self.signal_bytes + 5 * self.block_bytes, PEER)
        self.module.fill_zero(self.heap, self.signal_bytes, self.stream)
        self.module.stream_synchronize(self.stream)
        handle = create_string_buffer(128)
        self.module.peer_export(self.heap, handle)
        handles = self.gather(handle.raw)
        heaps = [self.heap if r == rank else self.opened(handles[r]) for r in range(ranks)]
        self.heaps = heaps
        self.signals = (c_uint64 * ranks)(*heaps)
        self.blocks = (c_uint64 * ranks)(*[heap + self.signal_bytes for heap in heaps])

    def gather(self, value):
        """What every rank says, in rank order."""
        self.link.send(value)
        return self.link.recv()

    def opened(self, handle):
        address = c_uint64()
        self.module.peer_open(handle, byref(address))
        return address.value

    def made(self, array):
        address = self.module.malloc(max(array.nbytes, 16), 0)
        self.put(address, array)
        return address

    def put(self, address, array):
        if array.nbytes:
            self.module.upload(address, array.ctypes.data, array.nbytes, self.stream)

    def get(self, address, like):
        result = np.empty_like(like)
        if result.nbytes:
            self.module.download(result.ctypes.data, address, result.nbytes, self.stream)
        return result

    def sum(self, case, out, base, bias, gate=0):
        args = PeerSum(blocks=self.blocks, signals=self.signals, out=out, base=base, bias=bias, gate=gate, biasDtype=case.get("biasDtype", case["dtype"]), total=case["total"], first=case["first"], count=case["count"],
                       rank=self.rank, ranks=self.ranks, columns=case["columns"], dtype=case["dtype"], sourceDtype=case["source"], shots=case["shots"])
        self.module.peer_sum(byref(args), self.stream)

    def gather_bytes(self, out, lengths):
        self.module.peer_gather(out, self.blocks, (c_int64 * self.ranks)(*lengths), self.signals, self.rank, self.ranks, self.stream)

    def exchange(self, volume, rows, row_bytes):
        """The volume's rows are 4 rowBytes apart: the halo above, the first and the last of its own, the halo below."""
        def slot(rank, side, turn):
            return self.heaps[rank] + self.signal_bytes + (1 + 2 * side + turn) * self.block_bytes

        def signals(rank, side):
            return self.heaps[rank] + self.pair_signals + side * 2 * PEER_BLOCKS * 4

        pairs = []
        for side, other in ((0, self.rank - 1), (1, self.rank + 1)):
            if 0 <= other < self.ranks:
                pairs.append(Neighbour(send=volume + (1 + side) * row_bytes, receive=volume + 3 * side * row_bytes, theirEven=slot(other, 1 - side, 0),
                                       theirOdd=slot(other, 1 - side, 1), ownEven=slot(self.rank, side, 0), ownOdd=slot(self.rank, side, 1),
                                       theirSignals=signals(other, 1 - side), ownSignals=signals(self.rank, side)))
        args = PeerExchange(neighbours=(Neighbour * len(pairs))(*pairs), pitch=4 * row_bytes, rowBytes=row_bytes, rows=rows, neighbourCount=len(pairs))
        self.module.peer_exchange(byref(args), self.stream)

    def close(self):
        self.gather(None)
        for r in range(self.ranks):
            if r != self.rank:
                self.module.peer_close(self.signals[r])
        self.gather(None)


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


CALLS = 10  # in one graph


def bench(paths, rank, ranks, gpus, link, sizes, repetitions):
    """Microseconds of a call, {(module, what, bytes): the slowest rank's median}."""
    times = {}
    for path in paths:
        self = Rank(path, rank, ranks, gpus, link, max(sizes))
        out = self.module.malloc(2 * max(sizes), 0)
        self.module.fill_zero(out, 2 * max(sizes), self.stream)
        self.module.fill_zero(self.blocks[rank], max(sizes), self.stream)
        for size in sizes:
            count = size // 2
            case = {"total": count, "first": 0, "count": count, "columns": 512, "dtype": F32, "source": BF16}
            even = [size // ranks] * ranks
            half = {**case, "first": count // ranks * rank, "count": count // ranks}
            whats = {
                "sum": lambda: self.sum({**case, "dtype": BF16, "shots": 1}, out, 0, 0),
                "sum2": lambda: self.sum({**case, "dtype": BF16, "shots": 2}, out, 0, 0),
                "residual": lambda: self.sum({**case, "shots": 1}, out, out, 0),
                "residual2": lambda: self.sum({**case, "shots": 2}, out, out, 0),
                "scatter": lambda: self.sum({**half, "shots": 1}, out, out, 0),
                "gather": lambda: self.gather_bytes(out, even),
            }
            for what, call in whats.items():
                self.module.capture_begin(self.stream)
                for _ in range(CALLS):
                    call()
                graph = self.module.capture_end(self.stream)
                taken = []
                for repetition in range(-1, repetitions):
                    start, end = self.module.event_create(), self.module.event_create()
                    self.gather(None)
                    self.gather_bytes(out, [0] * ranks)
                    self.module.event_record(start, self.stream)
                    self.module.graph_launch(graph, self.stream)
                    self.module.event_record(end, self.stream)
                    self.module.stream_synchronize(self.stream)
                    elapsed = c_float()
                    self.module.event_elapsed(start, end, byref(elapsed))
                    if repetition >= 0:
                        taken.append(elapsed.value * 1e3 / CALLS)
                self.module.graph_destroy(graph)
                times[path, what, size] = max(self.gather(float(np.median(taken))))
        self.close()
        self.module.free(out)
        self.module.free(self.heap)
        self.module.device_close()
    return times


def child(work, link, arguments):
    try:
        link.send(("result", work(*arguments, link=link)))
    except BaseException:
        link.send(("error", traceback.format_exc()))


def run(work, ranks, *arguments):
    """work(*arguments, rank, ranks, link=…) in a process a rank; whatever they send is handed to all. Returns each one's result."""
    context = multiprocessing.get_context("spawn")
    links, processes = [], []
    for rank in range(ranks):
        here, there = context.Pipe()
        process = context.Process(target=work, args=(there, rank, ranks, *arguments), daemon=True)
        process.start()
        links.append(here)
        processes.append(process)
    while True:
        said = []
        for link in links:
            if not link.poll(100):
                sys.exit("A rank said nothing for 100 s.")
            said.append(link.recv())
        ends = [value for value in said if isinstance(value, tuple) and value[0] in ("result", "error")]
        for value in ends:
            if value[0] == "error":
                sys.exit(value[1])
        if ends:
            for process in processes:
                process.join()
            return [value for _, value in ends]
        for link in links:
            link.send(said)


def check_rank(link, rank, ranks, path, gpus, largest, every):
    child(lambda link: check(path, rank, ranks, gpus, link, largest, every), link, ())


def bench_rank(link, rank, ranks, paths, gpus, sizes, repetitions):
    child(lambda link: bench(paths, rank, ranks, gpus, link, sizes, repetitions), link, ())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("module")
    parser.add_argument("--ranks", default="2,3,4,8")
    parser.add_argument("--gpus", type=int, default=1)
    parser.add_argument("--largest", type=int, default=1 << 20, help="elements of the largest sums that are checked")
    parser.add_argument("--every", type=int, default=1, help="check only every so many of the cases")
    parser.add_argument("--times", default="", help="modules to time")
    parser.add_argument("--repetitions", type=int, default=20)
    parser.add_argument("--sizes", default="16384,65536,262144,524288,1048576,4194304,16777216,67108864")
    options = parser.parse_args()
    ranks_list = [int(text) for text in options.ranks.split(",")]
    if options.times:
        sizes = [int(text) for text in options.sizes.split(",")]
        paths = options.times.split(",")
        for ranks in ranks_list:
            times = run(bench_rank, ranks, paths, options.gpus, sizes, options.repetitions)[0]
            for what in dict.fromkeys(what for _, what, _ in times):
                print(f"{ranks} ranks, {what}, µs of {[size // 1024 for size in sizes]} KiB")
                for path in paths:
                    print(f"  {path.split('/')[-1]:28}", *(f"{times[path, what, size]:8.1f}" for size in sizes))
        return
    bad = 0
    for ranks in ranks_list:
        results = run(check_rank, ranks, options.module, options.gpus, options.largest, options.every)
        failed = [line for _, lines in results for line in lines]
        bad += len(failed)
        print(f"{ranks} ranks: {results[0][0]} cases, {len(failed)} failures", *failed[:8], sep="\n  ", flush=True)
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
