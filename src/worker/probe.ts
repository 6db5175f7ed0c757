import { messageOf } from "../failure.js";
import { Kernels } from "./runtime/kernels.js";

// Run by the launcher, which itself never loads a kernel module: node probe.js FILE.so prints one line of JSON.
try {
  const kernels = new Kernels(process.argv[2] ?? "");
  const devices = kernels.create("deviceCount");
  if (devices > 0) kernels.call("deviceOpen", 0);
  process.stdout.write(`${JSON.stringify({ devices, info: devices > 0 ? kernels.deviceInfo() : null })}\n`);
} catch (error) {
  process.stderr.write(`${messageOf(error)}\n`);
  process.exitCode = 1;
}
