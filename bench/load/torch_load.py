"""safetensors.torch.load_file of each file to one GPU. Prints seconds, bytes and peak host memory as JSON."""
import json
import os
import sys
import time

import torch
from safetensors.torch import load_file


def peak():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))


torch.zeros(1, device="cuda")
torch.cuda.synchronize()
before, began = peak(), time.perf_counter()
for path in sys.argv[1:]:
    tensors = load_file(path, device="cuda")
    torch.cuda.synchronize()
    del tensors
print(json.dumps({"seconds": time.perf_counter() - began, "bytes": sum(map(os.path.getsize, sys.argv[1:])), "hostBytes": peak() - before}))
