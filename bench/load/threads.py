"""Reading threads alone: what disk or page cache give where nothing is done with the bytes. Prints seconds and bytes as JSON.

    python3 bench/load/threads.py [--threads 8] [--piece 4194304] [--drop] FILE...

--drop leaves the files out of the page cache, and reads nothing.
"""
import argparse
import json
import os
import threading
import time

parser = argparse.ArgumentParser()
parser.add_argument("--threads", type=int, default=8)
parser.add_argument("--piece", type=int, default=4 << 20)
parser.add_argument("--drop", action="store_true")
parser.add_argument("files", nargs="+")
options = parser.parse_args()

files = [os.open(path, os.O_RDONLY) for path in options.files]
if options.drop:
    for file in files:
        os.fsync(file)
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
    raise SystemExit
pieces = iter([(file, offset) for file in files for offset in range(0, os.fstat(file).st_size, options.piece)])
lock, read = threading.Lock(), []


def carry():
    buffer, done = bytearray(options.piece), 0
    buffer[::4096] = bytes(len(buffer[::4096]))  # its pages are there
    while True:
        with lock:
            piece = next(pieces, None)
        if piece is None:
            break
        done += os.preadv(piece[0], [buffer], piece[1])
    read.append(done)


threads = [threading.Thread(target=carry) for _ in range(options.threads)]
began = time.perf_counter()
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(json.dumps({"seconds": time.perf_counter() - began, "bytes": sum(read)}))
