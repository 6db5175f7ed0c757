import { messageOf } from "../failure.js";
import { probeModule } from "./runtime/kernels.js";

// Run by the launcher, which itself never loads a kernel module: node probe.js FILE.so prints one line of JSON.
try {
  process.stdout.write(`${JSON.stringify(probeModule(process.argv[2] ?? ""))}\n`);
} catch (error) {
  process.stderr.write(`${messageOf(error)}\n`);
  process.exitCode = 1;
}
