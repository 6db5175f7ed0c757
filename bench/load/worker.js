// Loads every tensor of the files as a worker does, in a process of its own: to bf16, or its matrices to e4m3. Prints JSON.
//   node bench/load/worker.js MODULE.so bf16|e4m3 FILE...       (npm run build before)
import { readFileSync, statSync } from "node:fs";
import { openSafetensors } from "../../dist/formats/safetensors.js";
import { Device } from "../../dist/worker/runtime/device.js";
import { CheckpointWeights } from "../../dist/worker/weights/checkpoint.js";
import { wholeOf } from "../../dist/worker/weights/source.js";

const [module, dtype, ...files] = process.argv.slice(2);
const memory = (key) =>
  Number(new RegExp(`^${key}:\\s*(\\d+)`, "m").exec(readFileSync("/proc/self/status", "utf8"))[1]) * 1024;

const device = Device.open(module, 0);
const before = memory("VmRSS");
const began = performance.now();
let bytes = 0;
for (const path of files) {
  const file = await openSafetensors(path);
  const source = new CheckpointWeights(device, file);
  for (const name of file.names()) {
    const { shape } = file.info(name);
    const parameter = { name, shape, init: { kind: "constant", value: 0 } };
    const out =
      shape.length > 1 && dtype === "e4m3"
        ? { ...device.allocatePersistent("e4m3", shape), rowScale: device.allocatePersistent("fp32", [shape[0]]) }
        : device.allocatePersistent("bf16", shape);
    await source.load(parameter, wholeOf(parameter), out);
  }
  await device.synchronize();
  await source.close();
  bytes += statSync(path).size;
}
const seconds = (performance.now() - began) / 1e3;
console.log(JSON.stringify({ seconds, bytes, hostBytes: memory("VmHWM") - before, device: device.info.name }));
device.close();
