import { execa } from "execa";
import type { Environment } from "./environment.js";

/** A GPU as nvidia-smi tells of it; undefined is what it does not know. */
export interface SmiGpu {
  readonly name: string;
  readonly eccOn: boolean | undefined;
  /** Errors of memory that could not be corrected since the driver was loaded. */
  readonly uncorrected: number | undefined;
  readonly migOn: boolean | undefined;
  /** In watts. */
  readonly powerLimit: number | undefined;
  readonly usualPowerLimit: number | undefined;
  readonly temperature: number | undefined;
  /** In MHz. */
  readonly clock: number | undefined;
  readonly mostClock: number | undefined;
}

const asked = [
  ...["name", "ecc.mode.current", "ecc.errors.uncorrected.volatile.total", "mig.mode.current"],
  ...["power.limit", "power.default_limit", "temperature.gpu", "clocks.sm", "clocks.max.sm"],
];
/** Without persistence mode the driver wakes each GPU first. */
const DEADLINE_MILLISECONDS = 25_000;

/** What nvidia-smi says of each GPU; undefined where there is none that answers. */
export async function askSmi(environment: Environment): Promise<readonly SmiGpu[] | undefined> {
  const { failed, stdout } = await execa(
    "nvidia-smi",
    [`--query-gpu=${asked.join(",")}`, "--format=csv,noheader,nounits"],
    {
      ...{ reject: false, stdin: "ignore", env: environment, extendEnv: false },
      ...{ timeout: DEADLINE_MILLISECONDS, killSignal: "SIGKILL" },
    },
  );
  return failed ? undefined : readSmi(stdout);
}

/** The rows of its answer: `NVIDIA H200, Enabled, 0, Disabled, 700.00, 700.00, 31, 1980, 1980`. */
export function readSmi(text: string): SmiGpu[] {
  const lines = text.split("\n").filter((line) => line.trim() !== "");
  return lines.map((line) => {
    const [name = "", ecc, uncorrected, mig, limit, usual, temperature, clock, mostClock] = line
      .split(",")
      .map((word) => word.trim());
    return {
      ...{ name, eccOn: switchOf(ecc), uncorrected: numberOf(uncorrected), migOn: switchOf(mig) },
      ...{ powerLimit: numberOf(limit), usualPowerLimit: numberOf(usual), temperature: numberOf(temperature) },
      ...{ clock: numberOf(clock), mostClock: numberOf(mostClock) },
    };
  });
}

/** `[N/A]` and `[Not Supported]` are no numbers. */
function numberOf(word: string | undefined): number | undefined {
  const value = Number(word || Number.NaN);
  return Number.isFinite(value) ? value : undefined;
}

function switchOf(word: string | undefined): boolean | undefined {
  return word === "Enabled" ? true : word === "Disabled" ? false : undefined;
}
