import type { Check } from "../check.js";
import { bandwidth } from "./bandwidth.js";
import { capability } from "./capability.js";
import { container } from "./container.js";
import { cores } from "./cores.js";
import { cpuLimit } from "./cpu-limit.js";
import { disk } from "./disk.js";
import { driver } from "./driver.js";
import { ffmpeg } from "./ffmpeg.js";
import { gpus } from "./gpus.js";
import { health } from "./health.js";
import { hosts } from "./hosts.js";
import { hubCacheCheck } from "./hub-cache.js";
import { install } from "./install.js";
import { ipv6 } from "./ipv6.js";
import { libraries } from "./libraries.js";
import { lockedMemory } from "./locked-memory.js";
import { loopback } from "./loopback.js";
import { memory } from "./memory.js";
import { modules } from "./modules.js";
import { nativePackages } from "./native-packages.js";
import { networkInterface } from "./network-interface.js";
import { node } from "./node.js";
import { numa } from "./numa.js";
import { openFiles } from "./open-files.js";
import { peers } from "./peers.js";
import { port } from "./port.js";
import { processes } from "./processes.js";
import { cpuRates, gpuRates } from "./rates.js";
import { shm } from "./shm.js";
import { temporary } from "./temporary.js";
import { token } from "./token.js";

/** All checks, in the order of the page. */
export const checks: readonly Check[] = [
  ...[node, install, ...nativePackages],
  ...[driver, gpus, capability, health, gpuRates],
  ...[...modules, ...libraries],
  ...[...peers, bandwidth],
  ...[memory, shm, lockedMemory, openFiles, processes, container],
  ...[loopback, port, networkInterface, ipv6, hosts],
  ...[cores, cpuLimit, numa, cpuRates],
  ...[hubCacheCheck, disk, temporary, ffmpeg, token],
];
