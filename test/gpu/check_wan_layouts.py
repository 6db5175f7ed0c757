"""Wan's sampling loop on several workers against one, through --dump, with random weights; workers may share one GPU.

    python3 test/gpu/check_wan_layouts.py [--model wan-slice] [--plans cfg2-cp4,cp4-tp2] [--dtypes fp32,bf16] [--device cuda]

wan-slice is two layers of the 1.3B model's full width. Float32 must agree within 1e-5 (relative L2), bf16 within 2e-2.
"""
import argparse
import os
import subprocess
import sys
import tempfile

import numpy as np
from safetensors.numpy import load_file

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
TOLERANCES = {"fp32": 1e-5, "bf16": 2e-2}


def dump(folder, options, dtype, plan):
    file = os.path.join(folder, "dump.safetensors")
    command = ["node", os.path.join(ROOT, "bin", "ditrun.js"), "--device", options.device, "--log-level", "warn", "--plan", plan,
               "--dtype", dtype, "--model", options.model, "wan", "generate", "--weights", "random", "--prompt", "A red car on a bridge",
               "--size", options.size, "--frames", str(options.frames), "--steps", str(options.steps), "--dump", file,
               "--out", os.path.join(folder, "video.mp4")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=options.timeout)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)} failed with exit code {done.returncode}: {done.stderr}")
    return load_file(file)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="wan-slice")
    parser.add_argument("--plans", default="cfg2-cp4,cp4-tp2")
    parser.add_argument("--dtypes", default="fp32,bf16")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--size", default="256*160")
    parser.add_argument("--frames", type=int, default=9)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--timeout", type=int, default=300)
    options = parser.parse_args()
    failed = False
    with tempfile.TemporaryDirectory() as folder:
        for dtype in options.dtypes.split(","):
            alone = dump(folder, options, dtype, "single")
            for plan in options.plans.split(","):
                shared = dump(folder, options, dtype, plan)
                assert shared.keys() == alone.keys()
                errors = {name: np.linalg.norm((shared[name] - alone[name]).astype(np.float64)) / np.linalg.norm(alone[name].astype(np.float64))
                          for name in sorted(alone)}
                # Not `>`: a NaN must fail too.
                bad = [name for name, error in errors.items() if not error <= TOLERANCES[dtype]]
                failed = failed or bool(bad)
                shown = ", ".join(f"{name} {error:.2e}" for name, error in errors.items())
                print(f"{'FAILED' if bad else 'ok'} {options.model} {dtype} {plan} against one worker: {shown}", flush=True)
    sys.exit(1 if failed else 0)


main()
