import { describe, expect, test } from "vitest";
import { soundsLikeVictim } from "../../../src/launcher/victim-words.js";
import { type RankEnd, victimsOf } from "../../../src/launcher/victims.js";

const reason = { code: "ERR_RANK_FAILED", message: "", echo: false } as const;
const cause = { ...reason, rank: 1 };
const end = (rank: number, how: string, ended: boolean): RankEnd => ({ rank, how, at: rank, ended });

describe("those that did not cause the end", () => {
  test("are told by what they did: by themselves, or ended by the launcher", () => {
    const ends = [
      end(1, "was killed by SIGSEGV", false),
      end(3, "was killed by SIGTERM", true),
      end(2, "exited with code 1", false),
      end(0, "exited with code 1", false),
      end(4, "exited with code 0", false),
      end(5, "was killed by SIGKILL", true),
    ];
    expect(victimsOf(cause, ends)).toBe(
      "Victims, not the cause: ranks 0 and 2 exited with code 1; ranks 3 and 5 were ended.",
    );
    expect(victimsOf(cause, [end(0, "was killed by SIGUSR1", false), end(2, "was killed by SIGUSR1", false)])).toBe(
      "Victims, not the cause: ranks 0 and 2 were killed by SIGUSR1.",
    );
  });

  test("are named as a range where there are many", () => {
    const ends = Array.from({ length: 62 }, (_, index) => end(index + 2, "was killed by SIGTERM", true));
    expect(victimsOf(cause, ends)).toBe("Victims, not the cause: ranks 2 to 63 were ended.");
  });

  test("are not told of where there are none, and where no rank is the cause", () => {
    expect(
      victimsOf(cause, [end(1, "exited with code 1", false), end(0, "exited with code 0", false)]),
    ).toBeUndefined();
    expect(victimsOf(reason, [end(0, "was killed by SIGTERM", true)])).toBeUndefined();
  });
});

test.each([
  "RuntimeError: [../third_party/gloo/gloo/transport/tcp/pair.cc:598] Connection closed by peer [127.0.0.1]:4711",
  "ConnectionResetError: [Errno 104] Connection reset by peer",
  "BrokenPipeError: [Errno 32] Broken pipe",
  "torch.distributed.DistBackendError: NCCL error: remote process exited or there was a network error",
  "[E ProcessGroupNCCL.cpp:828] [Rank 2] Watchdog caught collective operation timeout: WorkNCCL(OpType=ALLREDUCE)",
  "RuntimeError: Connection reset by peer. This may indicate a possible application crash on rank 0",
])("a victim says: %s", (line) => {
  expect(soundsLikeVictim(["before", line, "after"])).toBe(true);
});

test.each([
  "ValueError: no such layer",
  "torch.cuda.OutOfMemoryError: CUDA out of memory.",
  "RuntimeError: The size of tensor a (3) must match the size of tensor b (4)",
  "FileNotFoundError: [Errno 2] No such file or directory: 'peer.txt'",
])("a cause says: %s", (line) => {
  expect(soundsLikeVictim([line])).toBe(false);
});
