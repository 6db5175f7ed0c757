"""Processes that are the ranks of a group and meet in each other's memory: for check_peers.py and bench/peers.py."""
import multiprocessing
import sys
import traceback
from ctypes import byref, c_int64, c_uint64, create_string_buffer

import numpy as np

from ditrun_abi import PEER, PEER_BLOCKS, Module, Neighbour, PeerExchange, PeerSum

NAMES = """device_open device_close malloc free peer_export peer_open peer_close upload download copy fill_zero stream_create stream_synchronize
event_create event_record event_elapsed capture_begin capture_end graph_launch graph_destroy peer_sum peer_gather peer_exchange""".split()


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
        return self.module.peer_open(handle)

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


def child(link, work):
    """Sends what the work returns, or why it failed."""
    try:
        link.send(("result", work()))
    except BaseException:
        link.send(("error", traceback.format_exc()))


def run(work, ranks, *arguments):
    """work(link, rank, ranks, *arguments) in a process a rank; what all of them send is handed to each. Returns their results."""
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
