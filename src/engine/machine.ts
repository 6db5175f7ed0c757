import { access } from "node:fs/promises";
import { cpus } from "node:os";
import { join } from "node:path";
import { readDocument } from "../files/documents.js";
import { cacheFolder, type Environment } from "../hub/hub-cache.js";
import { type DeviceFile, deviceFileSchema, type Machine } from "../plan/planner/device.js";
import { machineOf } from "../plan/planner/machine.js";
import type { DeviceChoice } from "./choose-device.js";

/** What devices are called in messages, and in the name of their calibration. */
export function deviceName({ device, name }: Pick<DeviceChoice, "device" | "name">): string {
  if (device === "cuda") return name ?? "GPU";
  return cpus()[0]?.model.trim() || "CPU";
}

/**
 * Where `ditrun plan --calibrate` leaves what it measured of such devices: a file for each kind and number of them.
 * @throws DitrunError when the user has no home folder and no variable names the cache.
 */
export function calibrationFile(device: DeviceChoice, environment: Environment): string {
  const several = device.device === "cuda" ? device.count : cpus().length;
  const name = `${deviceName(device)} x${several}`.toLowerCase().replace(/[^a-z0-9]+/g, "-");
  return join(cacheFolder(environment), "ditrun", "devices", `${name}.json`);
}

/** What calibration has found of these devices. @throws DitrunError for a file that is none. */
async function readCalibration(device: DeviceChoice, environment: Environment): Promise<DeviceFile | undefined> {
  const file = calibrationFile(device, environment);
  const isThere = await access(file).then(
    () => true,
    () => false,
  );
  return isThere ? readDocument(file, deviceFileSchema) : undefined;
}

/** What plans are chosen for on these devices. @param hosts that have them, each as many. @throws DitrunError as readCalibration. */
export async function machineFor(device: DeviceChoice, hosts: number, environment: Environment): Promise<Machine> {
  const calibration = await readCalibration(device, environment);
  return machineOf({ kind: device.device, name: device.name, perHost: device.count, hosts, calibration });
}
