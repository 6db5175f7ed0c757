import type { DeviceFile, Machine } from "./device.js";
import { devices, knownDevice } from "./devices.js";

/** What plans are chosen for where nothing says what they will run on. */
export function usualMachine(): Machine {
  return { ...devices.h200, devicesPerHost: 8, hosts: 1 };
}

/** What is known of the devices at hand. */
export interface DevicesAtHand {
  readonly kind: "cpu" | "cuda";
  /** As the driver calls them. */
  readonly name?: string | undefined;
  readonly perHost: number;
  readonly hosts: number;
  /** What calibration has found here. */
  readonly calibration?: DeviceFile | undefined;
}

/**
 * The rates of a kind of device that was not measured: those of its name. A GPU that nobody knows is taken for an A100, since the order
 * of plans depends on ratios more than on rates.
 */
export function usualRates({ kind, name }: Pick<DevicesAtHand, "kind" | "name">): DeviceFile {
  if (kind === "cpu") return devices.cpu;
  return (name !== undefined && knownDevice(name)) || devices.a100;
}

/** The machine that those devices make: calibrated rates, else the usual ones. */
export function machineOf({ kind, name, perHost, hosts, calibration }: DevicesAtHand): Machine {
  const placed = { devicesPerHost: perHost, hosts };
  if (calibration) return { ...calibration, ...placed, calibrated: true };
  return { ...usualRates({ kind, name }), ...placed };
}
