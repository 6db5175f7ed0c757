// Makes the tarballs of a release in release/: the package, without a script that npm would run at an install, and a package of
// compiled modules for each kind of machine. They run on Linux x64 with glibc 2.31 or newer.
//   npm run pack:release [-- --no-cuda] [--levels x86-64-v3] [--out FOLDER]
import { execFile } from "node:child_process";
import { cp, mkdir, mkdtemp, readFile, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { basename, dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs, promisify } from "node:util";
import { run } from "../run.js";
import { moduleManifest, modulePackages, releaseManifest } from "./manifests.js";
import { cpuLevels, makeCpuModule, makeCudaModule, nvccVersion } from "./modules.js";

const root = dirname(dirname(dirname(fileURLToPath(import.meta.url))));

function readOptions() {
  const { values } = parseArgs({
    options: {
      "no-cuda": { type: "boolean", default: false },
      levels: { type: "string", default: Object.keys(cpuLevels).join(",") },
      out: { type: "string", default: join(root, "release") },
    },
  });
  const levels = values.levels.split(",");
  const unknown = levels.find((level) => !(level in cpuLevels));
  if (unknown !== undefined)
    throw new Error(`--levels has ${unknown}; there are ${Object.keys(cpuLevels).join(" and ")}.`);
  return { cuda: !values["no-cuda"], levels, out: resolve(values.out) };
}

async function need(command, args) {
  const { code, signal, error } = await run(command, args, root);
  if (code !== 0)
    throw new Error(`${command} ${args.join(" ")} failed (${error?.code ?? signal ?? `exit code ${code}`}).`);
}

/** Packs a folder that has all but package.json. @returns the tarball. */
async function pack(folder, manifest, out) {
  await writeFile(join(folder, "package.json"), `${JSON.stringify(manifest, null, 2)}\n`);
  const args = ["pack", folder, "--ignore-scripts", "--json", "--pack-destination", out];
  const { stdout } = await promisify(execFile)("npm", args, { cwd: root, maxBuffer: 1 << 26 });
  const [{ filename, unpackedSize }] = JSON.parse(stdout);
  const file = join(out, filename.replace("@", "").replace("/", "-"));
  const megabytes = (bytes) => (bytes / 1e6).toFixed(1);
  const { size } = await stat(file);
  console.log(`${basename(file)}: ${megabytes(size)} MB, unpacked ${megabytes(unpackedSize)} MB`);
  return file;
}

async function main(work) {
  if (process.platform !== "linux" || process.arch !== "x64") {
    throw new Error(`A release is made on Linux x64; this is ${process.platform} ${process.arch}.`);
  }
  const { cuda, levels, out } = readOptions();
  const nvcc = cuda ? await nvccVersion() : undefined;
  const manifest = JSON.parse(await readFile(join(root, "package.json"), "utf8"));
  const parts = nvcc === undefined ? ["cpu"] : ["cpu", "cuda"];
  const folderOf = (part) => join(work, modulePackages[part].name.split("/")[1]);

  await need(process.execPath, ["scripts/build.js", "--typescript"]);
  for (const level of levels) await makeCpuModule(root, level, folderOf("cpu"));
  if (nvcc !== undefined) {
    console.log(
      `ditrun: nvcc ${nvcc} compiles the CUDA module for four architectures, which takes long (--no-cuda leaves it out).`,
    );
    await makeCudaModule(root, folderOf("cuda"));
  }

  await mkdir(out, { recursive: true });
  for (const part of parts) {
    await cp(join(root, "LICENSE"), join(folderOf(part), "LICENSE"));
    const { what } = modulePackages[part];
    await writeFile(
      join(folderOf(part), "README.md"),
      `# ${what}\n\nInstall \`ditrun\`, which brings this package along.\n`,
    );
    await pack(folderOf(part), moduleManifest(manifest, part), out);
  }
  const staged = join(work, "ditrun");
  const released = releaseManifest(manifest, parts);
  const files = ["README.md", "LICENSE", ...released.files.map((entry) => entry.replace("/*.js", ""))];
  for (const entry of files) await cp(join(root, entry), join(staged, entry), { recursive: true });
  await pack(staged, released, out);
  if (parts.includes("cuda")) return;
  const why = cuda ? "nvcc is not on PATH" : "--no-cuda asks for none";
  console.log(`The release has no CUDA module, since ${why}.`);
}

const work = await mkdtemp(join(tmpdir(), "ditrun-release-"));
try {
  await main(work);
} catch (error) {
  console.error(`pack:release: ${error.message}`);
  process.exitCode = 1;
} finally {
  await rm(work, { recursive: true });
}
