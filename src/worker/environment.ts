import { DitrunError, exitCodes } from "../protocol/failure.js";
import { rendezvousVariables } from "../protocol/messages.js";

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

/**
 * Reads torchrun's variables and ditrun's keys.
 * @throws DitrunError naming a variable that is missing or wrong.
 */
export function readEnvironment(variables: NodeJS.ProcessEnv): WorkerEnvironment {
  const text = (name: string): string => {
    const value = variables[name];
    if (value === undefined || value === "") {
      throw new DitrunError(
        `The environment variable ${name} is not set: start workers with ditrun, or give them the variables that it sets.`,
        exitCodes.usage,
      );
    }
    return value;
  };
  const whole = (name: string, least: number): number => {
    const value = Number(text(name));
    if (!Number.isInteger(value) || value < least) {
      throw new DitrunError(
        `The environment variable ${name} is ${text(name)}; it must be a whole number of at least ${least}.`,
      );
    }
    return value;
  };
  whole("LOCAL_RANK", 0);
  whole("LOCAL_WORLD_SIZE", 1);
  const rank = whole("RANK", 0);
  const size = whole("WORLD_SIZE", 1);
  if (rank >= size) throw new DitrunError(`RANK is ${rank}, but WORLD_SIZE is ${size}: ranks are 0 to ${size - 1}.`);
  return {
    rank,
    size,
    address: text("MASTER_ADDR"),
    port: whole("MASTER_PORT", 1),
    serverKey: text(rendezvousVariables.serverKey),
    publicKey: text(rendezvousVariables.publicKey),
    secretKey: text(rendezvousVariables.secretKey),
    timeoutSeconds: Number(text(rendezvousVariables.timeoutSeconds)),
  };
}
