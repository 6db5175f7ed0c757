import { availableParallelism, cpus } from "node:os";
import { cpuLevelOf } from "../../engine/cpu-level.js";
import { counted } from "../../text.js";
import { defineCheck } from "../check.js";
import { textOf } from "../host.js";

/** The processor, and the cores of it that this process may use. */
export const cores = defineCheck({
  ...{ name: "cores", section: "cpu", what: "Processor" },
  look(host) {
    const cpuinfo = textOf(host, "proc/cpuinfo") ?? "";
    const [, name] = /^model name\s*:\s*(.*)$/m.exec(cpuinfo) ?? [];
    const told = { name: name ?? process.arch, cores: cpus().length, usable: availableParallelism() };
    // Only x86-64 has levels.
    if (process.arch !== "x64") return { ...told, level: null, lacks: [] };
    const { level, lacks } = cpuLevelOf(cpuinfo);
    return { ...told, level: level ?? null, lacks };
  },
  judge({ name, cores: all, usable, level, lacks }) {
    if (lacks.length > 0) {
      return {
        ...{ state: "warning", value: `${name}, which lacks ${lacks.join(", ")}: modules of a release need them` },
        wayOut: "Build the CPU module here: DITRUN_CMAKE_ARGS=-DDITRUN_CPU_ARCH=x86-64 npm run build -- --kernels",
      };
    }
    const may = usable < all ? `${usable} of ${counted(all, "core")}` : counted(all, "core");
    return { state: "ok", value: `${name}, ${may}${level === null ? "" : `, ${level}`}` };
  },
});
