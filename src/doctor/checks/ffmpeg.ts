import { execa } from "execa";
import { defineCheck } from "../check.js";

const DEADLINE_MILLISECONDS = 20_000;
/** The smallest picture that ditrun makes. */
const SIZE = "64x64";

/** ffmpeg, by encoding a black frame as videos are. Without it an encoder of npm writes them. */
export const ffmpeg = defineCheck({
  ...{ name: "ffmpeg", section: "files", what: "ffmpeg", deadline: 30 },
  async look({ environment }) {
    const { failed, code, stdout, stderr, timedOut } = await execa(
      "ffmpeg",
      [
        ...["-v", "error", "-f", "lavfi", "-i", `color=black:s=${SIZE}:r=1:d=1`, "-frames:v", "1"],
        ...["-c:v", "libx264", "-pix_fmt", "yuv420p", "-f", "framecrc", "-"],
      ],
      {
        ...{ reject: false, stdin: "ignore", env: environment, extendEnv: false },
        ...{ timeout: DEADLINE_MILLISECONDS, killSignal: "SIGKILL" },
      },
    );
    const there = code !== "ENOENT" && code !== "EACCES";
    const encoder = /libx264/.test(stdout) ? "libx264" : null;
    const failure = !failed ? null : timedOut ? "it did not answer" : (stderr.trim().split("\n").at(-1) ?? "");
    return { there, encoder, failure };
  },
  judge({ there, failure }) {
    const instead = "npm's encoder writes videos";
    if (!there) return { state: "ok", value: `none, so ${instead}` };
    if (failure === null) return { state: "ok", value: "libx264, tried" };
    return {
      ...{ state: "warning", value: `it cannot encode with libx264, so ${instead}: ${failure}` },
      wayOut: "Install an ffmpeg with libx264, as Debian's is.",
    };
  },
});
