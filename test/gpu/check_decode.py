"""Checks of ditrun_decode and of the reader against the CPU module beside this one, bit for bit (see check_kernels.py). Needs numpy alone."""
import ctypes
import os
import tempfile
import time

import numpy

import ditrun_abi_generated as abi
from ditrun_abi import BF16, DEVICE, E4M3, F16, F32, Decode, Module

STORED = [name for name in dir(abi) if name.startswith("STORED_")]
PLAIN = {"F32": (1, 4), "F16": (1, 2), "BF16": (1, 2), "F64": (1, 8), "F8_E4M3": (1, 1), "F8_E5M2": (1, 1), "I8": (1, 1)}
BLOCKS = {"Q8_0": (32, 34), "Q4_0": (32, 18), "Q4_1": (32, 20), "Q5_0": (32, 22), "Q5_1": (32, 24), "IQ4_NL": (32, 18), "Q2_K": (256, 84), "Q3_K": (256, 110),
          "Q4_K": (256, 144), "Q5_K": (256, 176), "Q6_K": (256, 210), "IQ4_XS": (256, 136)}
WIDTH = {F32: 4, BF16: 2, F16: 2, E4M3: 1}


class Memory:
    """Device memory of one module: what is put into it, and back."""

    def __init__(self, module):
        self.module, self.owned = module, []

    def put(self, array):
        array = numpy.ascontiguousarray(array)
        self.owned.append(self.module.malloc(max(array.nbytes, 1), DEVICE))
        self.module.upload(self.owned[-1], array.ctypes.data, array.nbytes, 0)
        return self.owned[-1]

    def poisoned(self, count, dtype):
        return self.put(numpy.full(count * WIDTH[dtype], 0xff, numpy.uint8))

    def get(self, at, count, dtype):
        out = numpy.empty(count * WIDTH[dtype], numpy.uint8)
        self.module.download(out.ctypes.data, at, out.nbytes, 0)
        return out

    def free(self):
        self.module.stream_synchronize(0)
        while self.owned:
            self.module.free(self.owned.pop())


def values(raw, dtype):
    """NaNs are alike whatever their bits."""
    if dtype == F32:
        bits = raw.view(numpy.uint32)
        return numpy.where((bits & 0x7fffffff) > 0x7f800000, numpy.uint32(0x7fc00000), bits)
    if dtype == E4M3:
        return numpy.where(raw & 0x7f == 0x7f, numpy.uint8(0x7f), raw)
    bits = raw.view(numpy.uint16)
    return numpy.where((bits & 0x7fff) > (0x7f80 if dtype == BF16 else 0x7c00), numpy.uint16(0x7fff), bits)


def differing(a, b, dtype):
    return int((values(a, dtype) != values(b, dtype)).sum())


def decoded(module, stored, shape, bytes_, scales, out_dtype, run=None):
    """The outputs of one decode on a module; run(args) queues it, ditrun_decode itself unless given."""
    rows, columns, first, count = shape
    memory = Memory(module)
    out, out_scale, squares = memory.poisoned(rows * count, out_dtype), memory.poisoned(rows, F32), memory.poisoned(rows, F32)
    quantised = out_dtype == E4M3
    args = Decode(out=out, rows=rows, columns=count, firstColumn=first, rowBytes=len(bytes_) // rows, ldo=count, stored=stored, outDtype=out_dtype,
                  outScale=out_scale if quantised else 0, squares=squares if quantised else 0, scaleRows=1 if scales is not None and len(scales) > 1 else 0)
    if run is None:
        args.x, args.scale = memory.put(bytes_), memory.put(scales) if scales is not None else 0
        module.decode(ctypes.byref(args), 0)
    else:
        run(args)
    result = [memory.get(out, rows * count, out_dtype), memory.get(out_scale, rows, F32), memory.get(squares, rows, F32)]
    memory.free()
    return result if quantised else result[:1]


def cases(rng):
    for name, (elements, width) in {**PLAIN, **BLOCKS}.items():
        stored = getattr(abi, f"STORED_{name}")
        for rows, columns, first, count in [(5, 768, 37, 700), (1, 256 * 401, 0, 256 * 401), (300, 256, 0, 256)]:
            bytes_ = rng.integers(0, 256, rows * columns // elements * width, dtype=numpy.uint8)
            for scales in (None, numpy.float32([0.3]), rng.normal(size=rows).astype(numpy.float32)):
                for out_dtype in (F32, BF16, F16, E4M3):
                    yield name, stored, (rows, columns, first, count), bytes_, scales, out_dtype


def exact_squares(oracle, stored, shape, bytes_, scales):
    """What the squares of each row add up to, in float64."""
    numbers = decoded(oracle, stored, shape, bytes_, scales, F32)[0].view(numpy.float32).astype(numpy.float64)
    return (numbers.reshape(shape[0], -1) ** 2).sum(axis=1)


def judge(report, name, found, wanted, out_dtype, exact=None):
    if out_dtype == E4M3:
        # A row with an infinity has no scale worth having.
        rows = numpy.isfinite(wanted[1].view(numpy.float32))
        found, wanted = ([x.reshape(len(rows), -1)[rows].ravel() for x in each] for each in (found, wanted))
        exact = exact[rows]
    report(f"{name}: elements that differ", differing(found[0], wanted[0], out_dtype), 0)
    if out_dtype == E4M3:
        report(f"{name}: scales that differ", differing(found[1], wanted[1], F32), 0)
        sums = found[2].view(numpy.float32).astype(numpy.float64)
        finite = (exact < numpy.finfo(numpy.float32).max) & (exact > numpy.finfo(numpy.float32).tiny)
        report(f"{name}: squares", float(numpy.max(numpy.abs(sums[finite] / exact[finite] - 1), initial=0)), 1e-5)


def checks(module, report, path):
    oracle_path = os.path.join(os.path.dirname(path), "libditrun_cpu.so")

    def decode():
        oracle, worst = Module(oracle_path), {}
        for name, stored, shape, bytes_, scales, out_dtype in cases(numpy.random.default_rng()):
            found, wanted = (decoded(each, stored, shape, bytes_, scales, out_dtype) for each in (module, oracle))
            judge(lambda what, error, limit: worst.update({what: (max(error, worst.get(what, (0,))[0]), limit)}), f"decode {name} -> {['f32', 'bf16', 'e4m3', 'f16'][out_dtype]}", found, wanted, out_dtype,
                  exact_squares(oracle, stored, shape, bytes_, scales) if out_dtype == E4M3 else None)
        for what, (error, limit) in worst.items():
            report(what, error, limit)

    def reader():
        oracle, rng = Module(oracle_path), numpy.random.default_rng()
        with tempfile.TemporaryFile() as file:
            opened = module.reader_open(8, 65536)

            def read(args, offset, scales):
                array = (ctypes.c_float * max(1, len(scales)))(*scales)
                ticket = module.reader_submit(opened, file.fileno(), offset, ctypes.byref(args), array, len(scales), 0)
                assert module.reader_wait(opened, ticket, 0) >= ticket

            for name, rows, columns, first, count, out_dtype in [("BF16", 3000, 512, 0, 512, F32), ("F32", 1, 700001, 0, 700001, BF16), ("Q6_K", 4000, 1024, 512, 256, BF16),
                                                                 ("F32", 700, 8960, 0, 8960, E4M3), ("F8_E4M3", 700, 8960, 4480, 4480, E4M3), ("Q4_0", 3, 160000, 5, 150001, F16)]:
                elements, width = {**PLAIN, **BLOCKS}[name]
                bytes_ = rng.integers(0, 256, rows * columns // elements * width, dtype=numpy.uint8)
                offset = file.seek(0, 2)
                file.write(bytes_.tobytes())
                file.flush()
                scales = rng.normal(size=rows).astype(numpy.float32) if rows > 1 else numpy.float32([])
                shape, stored = (rows, columns, first, count), getattr(abi, f"STORED_{name}")
                found = decoded(module, stored, shape, bytes_, scales if rows > 1 else None, out_dtype, lambda args: read(args, offset, scales))
                of_rows = scales if rows > 1 else None
                judge(report, f"reader {name} {rows}x{columns}", found, decoded(oracle, stored, shape, bytes_, of_rows, out_dtype), out_dtype,
                      exact_squares(oracle, stored, shape, bytes_, of_rows))
            module.reader_close(opened)
            opened, end, memory = module.reader_open(4, 65536), file.seek(0, 2), Memory(module)
            args = Decode(out=memory.poisoned(1 << 20, F32), rows=1, columns=1 << 20, rowBytes=1 << 20, ldo=1 << 20, stored=abi.STORED_I8, outDtype=F32)
            said = ""
            try:
                read(args, end - 100000, [])
            except RuntimeError as error:
                said = str(error)
            report("reader: says where a file ends", 0 if f"ended at byte {end}" in said else 1, 0, said[:100])
            module.reader_close(opened)
            memory.free()
            # Threads and pieces as workers have them, from the page cache.
            size = 1 << 30
            file.truncate(0)
            file.seek(0)
            for _ in range(size >> 26):
                file.write(bytes(1 << 26))
            file.flush()
            opened, before = module.reader_open(8, 4 << 20), module.memory_used()[0]
            args = Decode(out=memory.put(numpy.zeros(1)), rows=1, columns=size // 2, rowBytes=size, ldo=size // 2, stored=abi.STORED_BF16, outDtype=BF16)
            memory.owned.append(module.malloc(size, DEVICE))
            args.out = memory.owned[-1]
            began = time.perf_counter()
            read(args, 0, [])
            module.stream_synchronize(0)
            seconds = time.perf_counter() - began
            report("reader: 1 GiB of bf16 by 8 threads, a word about its speed", 0, 0, f"{size / seconds / 1e9:.1f} GB/s, {seconds:.3f} s")
            module.reader_close(opened)
            memory.free()

    return {"decode": decode, "reader": reader}


def main():
    """On the CPU module this checks the check."""
    import sys
    path = os.path.abspath(sys.argv[1])
    module, bad = Module(path), []
    module.device_open(0)

    def report(name, error, limit, detail=""):
        if not error <= limit:
            bad.append(name)
        print(f"{'ok  ' if error <= limit else 'FAIL'} {name:58s} {error:10.3g} {detail}", flush=True)
    for check in checks(module, report, path).values():
        check()
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
