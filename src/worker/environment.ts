import { DitrunError } from "../failure.js";
import { rendezvousVariables } from "../protocol/variables.js";

/** Where a worker stands and how it reaches its launcher. */
export interface WorkerEnvironment {
  rank: number;
  size: number;
  address: string;
  port: number;
  /** CURVE keys in Z85. */
  serverKey: string;
  publicKey: string;
  secretKey: string;
  /** Seconds that joining may take. */
  timeoutSeconds: number;
}

/** What this job alone has in the environment of its workers and of all that they start; undefined for a worker started by hand. */
export function jobMark(): string | undefined {
  return process.env[rendezvousVariables.job] || undefined;
}

/** 32 bytes, four to every five characters. */
const KEY_CHARACTERS = 40;

/**
 * Reads torchrun's variables and ditrun's keys.
 * @throws DitrunError naming a variable that is missing or wrong.
 */
export function readEnvironment(variables: NodeJS.ProcessEnv): WorkerEnvironment {
  const text = (name: string): string => {
    const value = variables[name];
    if (value === undefined || value === "") {
      throw new DitrunError(
        "ERR_WORKER_ENVIRONMENT",
        `The environment variable ${name} is not set: start workers with ditrun, or give them the variables that it sets.`,
      );
    }
    return value;
  };
  const refuse = (name: string, what: string): never => {
    throw new DitrunError(
      "ERR_WORKER_ENVIRONMENT",
      `The environment variable ${name} is ${text(name)}; it must be ${what}.`,
    );
  };
  const whole = (name: string, least: number, most = Number.MAX_SAFE_INTEGER): number => {
    const value = Number(text(name));
    const limits = most < Number.MAX_SAFE_INTEGER ? `from ${least} to ${most}` : `of at least ${least}`;
    if (!Number.isInteger(value) || value < least || value > most) refuse(name, `a whole number ${limits}`);
    return value;
  };
  const key = (name: string): string => {
    const value = text(name);
    if (value.length === KEY_CHARACTERS) return value;
    throw new DitrunError(
      "ERR_WORKER_ENVIRONMENT",
      `The environment variable ${name} has ${value.length} characters; it must be the ${KEY_CHARACTERS} of a CURVE key in Z85.`,
    );
  };
  whole("LOCAL_RANK", 0);
  whole("LOCAL_WORLD_SIZE", 1);
  const rank = whole("RANK", 0);
  const size = whole("WORLD_SIZE", 1);
  if (rank >= size)
    throw new DitrunError(
      "ERR_WORKER_ENVIRONMENT",
      `RANK is ${rank}, but WORLD_SIZE is ${size}: ranks are 0 to ${size - 1}.`,
    );
  const timeoutSeconds = Number(text(rendezvousVariables.timeoutSeconds));
  if (!(timeoutSeconds > 0)) refuse(rendezvousVariables.timeoutSeconds, "a number of seconds above 0");
  return {
    rank,
    size,
    address: text("MASTER_ADDR"),
    port: whole("MASTER_PORT", 1, 65_535),
    serverKey: key(rendezvousVariables.serverKey),
    publicKey: key(rendezvousVariables.publicKey),
    secretKey: key(rendezvousVariables.secretKey),
    timeoutSeconds,
  };
}
