#!/usr/bin/env python3
"""Hurts one worker of a running job on two GPUs (or on the CPU module) and looks at how the job ends: with the cause named, the exit code that
stands for it, and no process left.

    python3 test/gpu/check_failures.py [--model dit] [--only tp2] [--delay SECONDS]

Prints a line for each case and exits 1 when one fails. Needs `npm run build`; the plans over NCCL need two GPUs.
"""
import argparse
import os
import re
import signal
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
DEADLINE = 60  # seconds after which a job counts as hanging

# Name, options, command, signal to the last worker (or to the launcher), exit code, what ditrun's last sentence says.
CASES = (
    ("tp2", ("--tp", "2"), "profile", signal.SIGKILL, 137, r"Rank 1 .* was killed by SIGKILL"),
    ("cp2", ("--cp", "2"), "profile", signal.SIGKILL, 137, r"Rank 1 .* was killed by SIGKILL"),
    ("cp2 fp8", ("--cp", "2", "--fp8"), "profile", signal.SIGSEGV, 139, r"Rank 1 .* was killed by SIGSEGV"),
    ("cp2 over NCCL", ("--plan", "nccl"), "profile", signal.SIGKILL, 137, r"Rank 1 .* was killed by SIGKILL"),
    ("tp2 stopped", ("--tp", "2", "--timeout", "8"), "profile", signal.SIGSTOP, 4, r"Rank 1 has given no sign of life for more than 8 s"),
    ("wan cp2", ("--cp", "2"), "wan", signal.SIGKILL, 137, r"Rank 1 .* was killed by SIGKILL"),
    ("wan cp2, Ctrl-C", ("--cp", "2"), "wan", signal.SIGINT, 130, r"ended by SIGINT"),
)


def workers(launcher):
    """Processes whose parent is the launcher, in order of their age."""
    listed = subprocess.run(["ps", "-o", "pid=", "--ppid", str(launcher)], capture_output=True, text=True).stdout
    return sorted(int(pid) for pid in listed.split())


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as status:
            return status.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def check(case, options, folder):
    name, flags, command, sent, code, words = case
    flags = [os.path.join(folder, "nccl.yaml") if flag == "nccl" else flag for flag in flags]
    work = ["--model", options.model, "profile", "--warmup", "1", "--iterations", "100000"]
    if command == "wan":
        size = ["--model", options.wan, "--prompt", "a cat", "--steps", "1000", "--out", os.path.join(folder, "video.mp4")]
        work = ["wan", "generate", *size, *([] if options.wan == "tiny" else ["--weights", "random"])]
    with open(os.path.join(folder, "stderr"), "w+") as stderr:
        job = subprocess.Popen(["node", os.path.join(ROOT, "bin", "ditrun.js"), *flags, *work], stdout=subprocess.DEVNULL, stderr=stderr)
        started = time.monotonic()
        while len(workers(job.pid)) < 2 and job.poll() is None and time.monotonic() - started < DEADLINE:
            time.sleep(0.1)
        time.sleep(options.delay)
        ranks = workers(job.pid)
        if len(ranks) == 2:
            os.kill(job.pid if sent == signal.SIGINT else ranks[-1], sent)
        started = time.monotonic()
        try:
            ended = job.wait(DEADLINE)
        except subprocess.TimeoutExpired:
            ended = "no end"
        seconds = time.monotonic() - started
        left = [pid for pid in (job.pid, *ranks) if alive(pid)]
        for pid in left:
            os.kill(pid, signal.SIGKILL)
        stderr.seek(0)
        # The cause; the rank's last lines and its log may follow.
        last = ([line for line in stderr.read().split("\n") if line.startswith("ditrun: ")] or [""])[-1]
    leftovers = [file for file in os.listdir(folder) if file.startswith("video")]
    passed = len(ranks) == 2 and ended == code and re.search(words, last) and not left and not leftovers
    print(f"{'ok  ' if passed else 'FAIL'} {name}: exit {ended} after {seconds:.1f} s, {len(ranks)} workers, left: {left + leftovers or 'nothing'}; {last[:160]}", flush=True)
    return passed


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="dit")
    parser.add_argument("--wan", default="1.4B")
    parser.add_argument("--only", default="")
    parser.add_argument("--delay", type=float, default=7, help="seconds from the start of the workers until the work is certainly under way")
    options = parser.parse_args()
    failed = []
    for case in CASES:
        if options.only not in case[0]:
            continue
        if "NCCL" in case[0] and not os.path.exists("/dev/nvidia1"):
            print(f"skip {case[0]}: there are no two GPUs")
            continue
        with tempfile.TemporaryDirectory() as folder:
            with open(os.path.join(folder, "nccl.yaml"), "w") as plan:
                plan.write("mesh: { cp: 2 }\nring: { transport: nccl }\n")
            if not check(case, options, folder):
                failed.append(case[0])
    if failed:
        print(f"{len(failed)} failed: {', '.join(failed)}")
        sys.exit(1)


if __name__ == "__main__":
    main()
