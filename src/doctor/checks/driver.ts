import { join } from "node:path";
import { gpuIsVisible } from "../../engine/visible-gpu.js";
import { counted } from "../../text.js";
import { defineCheck } from "../check.js";
import { type Host, namesIn, textOf } from "../host.js";
import { containerOf } from "./container.js";

const NVIDIA = "0x10de";
/** Display controllers, in the PCI code of classes. */
const DISPLAY = /^0x03/;

/** GPUs of NVIDIA's on the PCI bus, whether or not this process may use them. */
function gpusOnBus(host: Host): number {
  const folder = "sys/bus/pci/devices";
  return namesIn(host, folder).filter(
    (name) =>
      textOf(host, join(folder, name, "vendor")) === NVIDIA &&
      DISPLAY.test(textOf(host, join(folder, name, "class")) ?? ""),
  ).length;
}

/** NVIDIA's driver, and whether it shows a GPU to this process. */
export const driver = defineCheck({
  ...{ name: "driver", section: "gpus", what: "Driver" },
  look(host) {
    const text = textOf(host, "proc/driver/nvidia/version");
    const [, version] = /NVRM version:.*?\s(\d+\.\d+(?:\.\d+)?)\s/.exec(text ?? "") ?? [];
    return {
      version: text === undefined ? null : (version ?? "of an unknown version"),
      visible: gpuIsVisible(join(host.root, "dev")),
      onBus: gpusOnBus(host),
      container: containerOf(host),
    };
  },
  judge({ version, visible, onBus, container }) {
    if (visible) return { state: "ok", value: version === null ? "NVIDIA's, by WSL" : `NVIDIA ${version}` };
    if (version === null && onBus === 0) return { state: "ok", value: "no NVIDIA GPU: the CPU module is used" };
    const value =
      version === null
        ? `${counted(onBus, "NVIDIA GPU")} on the PCI bus, and no driver for ${onBus === 1 ? "it" : "them"} here`
        : `NVIDIA ${version} is loaded, but shows this process no GPU`;
    const wayOut =
      container === null
        ? "Install NVIDIA's driver, and look whether nvidia-smi shows the GPU."
        : "Start the container with its GPUs: docker run --gpus all.";
    return { state: "warning", value, wayOut };
  },
});
