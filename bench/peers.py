#!/usr/bin/env python3
"""Times sums, gathers and reduce-scatters over peer memory, in one shot and in two, between GPUs; `ditrun links` compares with NCCL.

    python3 bench/peers.py MODULE[,MODULE…] --ranks 2 [--sizes 65536,67108864] [--repetitions 20]

One rank a GPU. Sizes are bytes of the bf16 block that is summed or gathered; "residual" adds it to float32, in place. Microseconds of a
call in a graph of ten: the median of the repetitions, of the slowest rank.
"""
import argparse
import os
import sys
from ctypes import byref, c_float

import numpy as np

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "test", "gpu"))
from ditrun_abi import BF16, F32  # noqa: E402
from peer_ranks import Rank, child, run  # noqa: E402

CALLS = 10  # in one graph


def bench(paths, rank, ranks, link, sizes, repetitions):
    """Microseconds of a call, {(module, what, bytes): the slowest rank's median}."""
    times = {}
    for path in paths:
        self = Rank(path, rank, ranks, ranks, link, max(sizes))
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


def bench_rank(link, rank, ranks, paths, sizes, repetitions):
    child(link, lambda: bench(paths, rank, ranks, link, sizes, repetitions))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("modules")
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--repetitions", type=int, default=20)
    parser.add_argument("--sizes", default="16384,65536,262144,524288,1048576,4194304,16777216,67108864")
    options = parser.parse_args()
    sizes = [int(text) for text in options.sizes.split(",")]
    paths = options.modules.split(",")
    times = run(bench_rank, options.ranks, paths, sizes, options.repetitions)[0]
    for what in dict.fromkeys(what for _, what, _ in times):
        print(f"{options.ranks} ranks, {what}, µs of {[size // 1024 for size in sizes]} KiB")
        for path in paths:
            print(f"  {path.split('/')[-1]:28}", *(f"{times[path, what, size]:8.1f}" for size in sizes))


if __name__ == "__main__":
    main()
