"""What dit_vs_pytorch.py and wan_vs_pytorch.py share: timing PyTorch, running ditrun, comparing their outputs."""
import json
import os
import subprocess
import sys

import torch

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def median_ms(run, iterations):
    """Median of the device's time of run(), after one run that is not counted."""
    run()
    times = []
    for _ in range(iterations):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        run()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end))
    return sorted(times)[len(times) // 2]


def ditrun(*arguments):
    """The JSON document of `ditrun … --json`; ends this script with ditrun's own words where there is none."""
    command = ["node", os.path.join(ROOT, "bin", "ditrun.js"), "--log-level", "warn", "--json", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    if not done.stdout:
        sys.exit(f"{' '.join(command)} failed with exit code {done.returncode}: {done.stderr}")
    return json.loads(done.stdout)


def error_of(output, reference):
    difference = (output.double() - reference.double()).abs()
    return {"meanAbs": difference.mean().item(), "maxAbs": difference.max().item(),
            "relL2": (difference.norm() / reference.double().norm()).item()}
