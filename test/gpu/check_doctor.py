"""ditrun doctor where there is a GPU: every part that a host without one cannot show.

python3 test/gpu/check_doctor.py     npm run build first; CUDA module, driver and nvidia-smi as they are
"""

import json
import os
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
wrong = []


def doctor(*words, **variables):
    """The exit code, and the checks of the document by their names."""
    line = ["node", os.path.join(ROOT, "bin", "ditrun.js"), "doctor", *words, "--json"]
    done = subprocess.run(line, env={**os.environ, **variables}, capture_output=True, text=True)
    print(f"$ ditrun doctor {' '.join(words)} {variables or ''}\n{done.stderr}", flush=True)
    return done.returncode, {check["check"]: check for check in json.loads(done.stdout)["checks"]}


def expect(what, holds):
    print(f"{'ok  ' if holds else 'FAIL'} {what}", flush=True)
    if not holds:
        wrong.append(what)


code, checks = doctor("--bench")
gpus = len(checks["capability"]["facts"]["ranks"])
broken = [name for name, check in checks.items() if check["state"] == "problem"]
expect(f"no problem on this host: {broken}", code == 0 and not broken)
expect("a GPU is seen, and each runs a kernel", gpus > 0 and checks["capability"]["state"] == "ok")
expect("the CUDA module is tried", checks["cuda-module"]["value"].endswith("tried"))
cublaslt = checks["cublaslt"]["facts"]
expect(f"the file of cuBLASLt is told: {cublaslt['file']}", os.path.exists(cublaslt["file"] or ""))
nccl = checks["nccl"]["facts"]
expect(f"NCCL is opened from a file, or is not there: {nccl['file']}", (nccl["version"] is None) == (nccl["file"] is None))
rates = checks["gpu-rates"]["facts"]["ranks"]
expect("every GPU has rates", len(rates) == gpus and all(rank["rates"]["gemmTflops"] > 10 for rank in rates))
pairs = checks["gpu-peers"]["facts"]["pairs"]
expect("every way between GPUs is tried", len(pairs) == gpus * (gpus - 1) and not any("failure" in pair for pair in pairs))
expect("every way has a rate", all(pair["gigabytesPerSecond"] > 1 for pair in pairs))

code, checks = doctor("--only", "visible-gpus", "--only", "capability", CUDA_VISIBLE_DEVICES="banana")
expect("CUDA_VISIBLE_DEVICES=banana is a problem", code == 1 and checks["visible-gpus"]["state"] == "problem")
expect("and kernels have nothing to run on", checks["capability"]["state"] == "ok")
code, checks = doctor("--only", "visible-gpus", CUDA_VISIBLE_DEVICES="0,99")
expect("CUDA_VISIBLE_DEVICES=0,99 is a warning", code == 0 and checks["visible-gpus"]["state"] == "warning")
code, checks = doctor("--only", "gpus", CUDA_VISIBLE_DEVICES="")
expect("GPUs that are hidden are no fault", code == 0 and checks["visible-gpus"]["state"] == "ok")
code, checks = doctor("--only", "kernels", DITRUN_NCCL="/nowhere/libnccl.so.2", DITRUN_CUBLASLT="/nowhere/libcublasLt.so")
expect("libraries that cannot be opened are problems", code == 1 and checks["nccl"]["state"] == checks["cublaslt"]["state"] == "problem")
code, checks = doctor("--only", "kernels", DITRUN_KERNELS=os.path.join(ROOT, "build", "libditrun_cuda.so"))
expect("DITRUN_KERNELS that names the CUDA module replaces that one", code == 0 and "tried" in checks["cuda-module"]["value"])

sys.exit(f"{len(wrong)} wrong: {'; '.join(wrong)}" if wrong else 0)
