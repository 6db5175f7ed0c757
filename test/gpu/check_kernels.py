#!/usr/bin/env python3
"""Checks every function of libditrun_cuda.so against PyTorch (float64 where that is the reference) on fresh random data, and times some.

    python3 test/gpu/check_kernels.py build/libditrun_cuda.so [--no-bench] [--only NAME]

Prints a table and exits 1 when a check fails. Needs PyTorch with CUDA; the module itself is called through ctypes.
"""
import argparse
import ctypes
import json
import multiprocessing
import os
import struct
import sys
import time
import traceback

from ditrun_abi import BF16, DEVICE, F32, PEER, SILU, Attention, Gemm, KvBlock, Module, Random

rows = []


def report(name, error, limit, detail=""):
    """One line of the table; NaN never passes."""
    passed = error <= limit
    rows.append((name, passed))
    print(f"{'ok  ' if passed else 'FAIL'} {name:58s} {error:10.3g} (limit {limit:g}) {detail}", flush=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("module")
    parser.add_argument("--no-bench", action="store_true")
    parser.add_argument("--only", help="run only the checks whose name contains this")
    options = parser.parse_args()
    path = os.path.abspath(options.module)

    import check_operators
    import check_attention
    import check_decode
    import check_wan
    module = Module(path)
    module.device_open(0)
    info = ctypes.create_string_buffer(2048)
    module.device_info(info, 2048)
    print(json.dumps(json.loads(info.value)), flush=True)
    checks = {
        "errors": lambda: check_errors(module),
        **check_operators.checks(module, report),
        **check_attention.checks(module, report),
        **check_wan.checks(module, report),
        **check_decode.checks(module, report, path),
        "graph": lambda: check_graph(module),
        "nccl": lambda: check_nccl(module),
        "peers": lambda: check_peers(path, module),
    }
    for name, check in checks.items():
        if options.only and options.only not in name:
            continue
        try:
            check()
        except Exception:
            traceback.print_exc()
            rows.append((name, False))
            print(f"FAIL {name}: stopped by the exception above", flush=True)
    if not options.no_bench:
        import bench_kernels
        bench_kernels.run(module, options.only)
    failed = [name for name, passed in rows if not passed]
    print(f"{len(rows) - len(failed)} of {len(rows)} checks passed" + (": failed " + ", ".join(failed) if failed else ""))
    sys.exit(1 if failed else 0)


def check_errors(module):
    """Wrong arguments get a status and a sentence that holds the values."""
    lib, address = module.lib, ctypes.byref(ctypes.c_uint64())
    nothing = ctypes.byref(Gemm(m=1, n=1, k=1, batch=1, lda=1, ldw=1, ldo=1))
    cases = {
        "unknown dtype": (lambda: lib.ditrun_cast(0, 77, 0, 0, 8, 0), "77"),
        "null address": (lambda: lib.ditrun_add(0, 0, 0, 8, F32, 0), "8 elements"),
        "free of a foreign address": (lambda: lib.ditrun_free(0x1234), "0x1234"),
        "export of a foreign address": (lambda: lib.ditrun_peer_export(0x1234, ctypes.create_string_buffer(128)), "0x1234"),
        "handle of another module": (lambda: lib.ditrun_peer_open(b"x" * 128, address), "handle"),
        "a device that does not exist": (lambda: lib.ditrun_device_open(99), "99"),
        "gemm without addresses": (lambda: lib.ditrun_gemm(nothing, 0), "null address"),
        "out of memory": (lambda: lib.ditrun_malloc(1 << 45, DEVICE, address), "no room"),
    }
    for name, (call, words) in cases.items():
        status = call()
        said = lib.ditrun_last_error().decode()
        report(f"errors: {name}", 0 if status != 0 and words in said else 1, 0, said[:110])
    before = module.memory_used()[0]
    address = module.malloc(1000, DEVICE)
    during = module.memory_used()[0]
    module.free(address)
    report("memory_used counts", abs(during - before - 1000) + abs(module.memory_used()[0] - before), 0)


def check_graph(module):
    """A captured chain of GEMM, LayerNorm, activation and attention replays to the same bits as the eager calls, on new input."""
    import torch
    from check_operators import gemm_args, layer_norm_args
    from check_attention import attention_args
    torch.manual_seed(5)
    tokens, width, heads = 300, 128, 4
    x = torch.randn(tokens, width, device="cuda", dtype=torch.bfloat16)
    weight = torch.randn(3 * width, width, device="cuda", dtype=torch.bfloat16) / 11
    scale = torch.ones(width, device="cuda", dtype=torch.bfloat16)
    normed, out = torch.empty_like(x), torch.empty_like(x)
    qkv = torch.empty(tokens, 3 * width, device="cuda", dtype=torch.bfloat16)
    torch.cuda.synchronize()
    stream, side = module.stream_create(0), module.stream_create(1)
    fork, join = module.event_create(), module.event_create()

    def chain():
        module.layer_norm(layer_norm_args(x, normed, scale, None), stream)
        module.gemm(gemm_args(normed, weight, qkv), stream)
        module.event_record(fork, stream)
        module.stream_wait_event(side, fork)
        module.activate(qkv.data_ptr(), qkv.data_ptr(), qkv.numel(), BF16, SILU, side)
        module.event_record(join, side)
        module.stream_wait_event(stream, join)
        q, k, v = qkv.view(tokens, 3, heads, width // heads).unbind(1)
        args, keep = attention_args(q, [(k, v)], out.view(tokens, heads, width // heads), None, kernel=2)
        module.attention(args, stream)
        return keep

    chain()  # finds kernels and plans before the capture
    module.stream_synchronize(stream)
    module.capture_begin(stream)
    keep = chain()
    graph = module.capture_end(stream)
    for turn in range(3):
        x.copy_(torch.randn_like(x))
        torch.cuda.synchronize()
        chain()
        module.stream_synchronize(stream)
        eager = out.clone()
        out.fill_(float("nan"))
        torch.cuda.synchronize()
        module.graph_launch(graph, stream)
        module.stream_synchronize(stream)
        report(f"graph: replay {turn} equals eager", float((out.float() - eager.float()).abs().max()), 0)
    start, end = module.event_create(), module.event_create()
    module.event_record(start, stream)
    module.graph_launch(graph, stream)
    module.event_record(end, stream)
    module.stream_synchronize(stream)
    elapsed = ctypes.c_float()
    module.event_elapsed(start, end, ctypes.byref(elapsed))
    report("graph: event_elapsed is positive", 0 if 0 < elapsed.value < 1000 else 1, 0, f"{elapsed.value:.3f} ms")
    module.graph_destroy(graph)
    for event in (start, end, fork, join):
        module.event_destroy(event)
    module.stream_destroy(side)
    module.stream_destroy(stream)
    del keep


def check_nccl(module):
    """One rank: every collective is a copy of its own data."""
    import torch
    identity = ctypes.create_string_buffer(128)
    module.nccl_unique_id(identity)
    comm = module.nccl_init(identity, 0, 1)
    for dtype, code in ((torch.float32, F32), (torch.bfloat16, BF16)):
        x = torch.randn(1001, device="cuda").to(dtype)
        for name in ("all_reduce", "all_gather"):
            out = torch.full_like(x, float("nan"))
            torch.cuda.synchronize()
            getattr(module, f"nccl_{name}")(comm, out.data_ptr(), x.data_ptr(), x.numel(), code, 0)
            torch.cuda.synchronize()
            report(f"nccl {name} {dtype}, one rank", float((out.float() - x.float()).abs().max()), 0)
    x, out = torch.randn(1000, device="cuda"), torch.full((1000,), float("nan"), device="cuda")
    torch.cuda.synchronize()
    array = lambda kind, value: (kind * 1)(value)
    module.nccl_exchange(comm, array(ctypes.c_uint64, x.data_ptr()), array(ctypes.c_int64, 4000), array(ctypes.c_int, 0), 1,
                         array(ctypes.c_uint64, out.data_ptr()), array(ctypes.c_int64, 4000), array(ctypes.c_int, 0), 1, 0)
    torch.cuda.synchronize()
    report("nccl exchange with itself", float((out - x).abs().max()), 0)
    module.nccl_check(comm)
    module.nccl_destroy(comm)


# ---- two processes on one GPU ----

PEER_COUNT = 1 << 20  # floats


def peer_process(rank, path, pipe):
    try:
        results = peer_work(rank, path, pipe)
    except Exception:
        results = [(f"peers: rank {rank} stopped: {traceback.format_exc()}", 1.0)]
    pipe.send(("results", results))
    pipe.recv()  # stay alive until the other side has read and closed


def peer_work(rank, path, pipe):
    """Copies into the other process's memory ordered by flags, eagerly and in a replayed graph."""
    module = Module(path)
    module.device_open(0)
    results = []
    size = PEER_COUNT * 4
    window = module.malloc(2 * size + 4096, PEER)
    ready, credit = window + 2 * size, window + 2 * size + 4
    module.fill_zero(window, 2 * size + 4096, 0)
    module.stream_synchronize(0)
    export = [ctypes.create_string_buffer(128), ctypes.create_string_buffer(128)]
    module.peer_export(window, export[0])
    module.peer_export(ready, export[1])
    pipe.send(("handles", [bytes(export[0].raw), bytes(export[1].raw)]))
    theirs = pipe.recv()
    peer_window, peer_ready = [module.peer_open(handle) for handle in theirs]
    peer_credit = peer_ready + 4
    results.append(("peers: two opens of one allocation agree", abs(peer_ready - peer_window - 2 * size)))
    own = module.peer_open(export[1].raw)
    results.append(("peers: an own handle opens as itself", abs(own - ready)))
    module.peer_close(own)

    source, sink, stream = module.malloc(size, DEVICE), module.malloc(size, DEVICE), module.stream_create(1)
    flags = lambda *addresses: (ctypes.c_uint64 * len(addresses))(*addresses)

    def fill(turn):
        values = struct.pack("<8f", *(1000.0 * rank + 10 * turn + i for i in range(8))) * (PEER_COUNT // 8)
        module.upload(source, values, size, stream)

    def wrong(turn):
        got = ctypes.create_string_buffer(size)
        module.download(got, sink, size, stream)
        expected = struct.pack("<8f", *(1000.0 * (1 - rank) + 10 * turn + i for i in range(8))) * (PEER_COUNT // 8)
        return float(got.raw != expected)

    def exchange():
        module.flags_wait(flags(credit), 1, 1, stream)
        module.copy(peer_window, source, size, stream)
        module.flags_write(flags(peer_ready), 1, 1, stream)
        module.flags_wait(flags(ready), 1, 1, stream)
        module.copy(sink, window, size, stream)
        module.flags_write(flags(peer_credit), 1, 1, stream)

    module.flags_write(flags(peer_credit), 1, 1, stream)  # the first credit
    for turn in range(3):
        fill(turn)
        exchange()
        results.append((f"peers: eager exchange {turn}", wrong(turn)))
    module.capture_begin(stream)
    exchange()
    graph = module.capture_end(stream)
    for turn in range(3, 6):
        fill(turn)
        module.graph_launch(graph, stream)
        results.append((f"peers: replayed exchange {turn}", wrong(turn)))
    module.stream_synchronize(stream)
    module.graph_destroy(graph)
    results.append(waiting_attention(module, rank, window, ready, peer_window, peer_ready, size, stream))
    module.peer_close(peer_ready)
    module.peer_close(peer_window)
    try:
        module.peer_close(peer_window)
        results.append(("peers: a second close is refused", 1.0))
    except RuntimeError:
        results.append(("peers: a second close is refused", 0.0))
    return results


def waiting_attention(module, rank, window, ready, peer_window, peer_ready, size, copies):
    """Attention fills the GPU in both processes and waits for keys that the other sends only then: copies must still get through."""
    import threading
    queries, keys, heads, dim = 20000, 700, 16, 64
    width = heads * dim
    q, o, kv = (module.malloc(count * width * 4, DEVICE) for count in (queries, queries, 2 * keys))
    compute, rescue = module.stream_create(0), module.stream_create(1)

    def fill(address, rows, tensor):
        module.fill_random(ctypes.byref(Random(out=address, seed=7, fullColumns=width, ldo=width, rows=rows, columns=width, tensorId=tensor, distribution=1, amplitude=1)), compute)

    def attend(k, flag):
        block = KvBlock(k=k, v=k + keys * width * 4, flag=flag, kStride=width, vStride=width, length=keys)
        args = Attention(q=q, o=o, blocks=ctypes.pointer(block), qStride=width, oStride=width, queries=queries, heads=heads, headDim=dim, blockCount=1, dtype=F32, oDtype=F32,
                         kernel=1, scale=dim**-0.5)
        module.attention(ctypes.byref(args), compute)

    def output():
        got = ctypes.create_string_buffer(queries * width * 4)
        module.download(got, o, queries * width * 4, compute)
        return got.raw

    fill(q, queries, 100 + rank)
    fill(kv, 2 * keys, 1 - rank)
    attend(kv, 0)
    expected = output()
    module.fill_zero(o, queries * width * 4, compute)
    fill(kv, 2 * keys, rank)
    module.stream_synchronize(compute)
    one = lambda address: (ctypes.c_uint64 * 1)(address)
    attend(window, ready)
    time.sleep(0.1)
    module.copy(peer_window, kv, 2 * keys * width * 4, copies)
    module.flags_write(one(peer_ready), 1, 1, copies)
    waiter = threading.Thread(target=lambda: module.stream_synchronize(compute))
    waiter.start()
    waiter.join(8)
    stuck = waiter.is_alive()
    if stuck:
        module.flags_write(one(ready), 1, 1, rescue)
        waiter.join()
    module.stream_synchronize(copies)
    return "peers: waiting attention in two processes of one GPU" + (" (stuck)" if stuck else ""), float(stuck or output() != expected)


def check_peers(path, module):
    spawn = multiprocessing.get_context("spawn")
    pipes = [spawn.Pipe() for _ in range(2)]
    children = [spawn.Process(target=peer_process, args=(rank, path, pipes[rank][1])) for rank in range(2)]
    for child in children:
        child.start()
    messages = [[], []]
    deadline = time.time() + 60
    exported = []
    try:
        for rank in range(2):
            if not pipes[rank][0].poll(deadline - time.time()):
                raise RuntimeError(f"process {rank} sent no handles within 60 s")
            messages[rank] = pipes[rank][0].recv()
        if all(kind == "handles" for kind, _ in messages):
            exported = [message[1] for message in messages]
            for rank in range(2):
                pipes[rank][0].send(exported[1 - rank])
            for rank in range(2):
                if not pipes[rank][0].poll(max(1, deadline - time.time())):
                    raise RuntimeError(f"process {rank} did not finish within 60 s: a flag never came")
                messages[rank] = pipes[rank][0].recv()
        for rank, (_, results) in enumerate(messages):
            for name, error in results:
                report(f"{name} (rank {rank})", error, 0)
        for rank in range(2):
            pipes[rank][0].send("done")
        for child in children:
            child.join(20)
    finally:
        for child in children:
            if child.is_alive():
                child.kill()
                child.join()
    if exported:
        status = module.lib.ditrun_peer_open(exported[0][0], ctypes.byref(ctypes.c_uint64()))
        report("peers: memory of an ended process is refused", 0 if status == 6 else 1, 0, module.lib.ditrun_last_error().decode()[:110])


if __name__ == "__main__":
    main()
