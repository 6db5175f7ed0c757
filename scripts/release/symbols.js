// Which versions of the system's libraries a compiled module asks for, and whether a release may.
import { execFile } from "node:child_process";
import { promisify } from "node:util";

/** The newest version of each that a module may ask for: those of Debian 11, for glibc and for what Node.js itself needs. */
const newest = { GLIBC: "2.31", GCC: "10.2.0" };

/** Shared libraries that every Linux with Node.js has; others would have to be installed. */
const usual =
  /^(?:libc\.so\.6|libm\.so\.6|libpthread\.so\.0|libdl\.so\.2|librt\.so\.1|libgcc_s\.so\.1|ld-linux-x86-64\.so\.2)$/;

/** -1, 0 or 1, as numbers between points. */
function compare(one, other) {
  const [a, b] = [one, other].map((version) => version.split(".").map(Number));
  for (let i = 0; i < Math.max(a.length, b.length); i++) {
    const difference = (a[i] ?? 0) - (b[i] ?? 0);
    if (difference !== 0) return Math.sign(difference);
  }
  return 0;
}

/**
 * @param dynamic what `objdump -T` prints of a module.
 * @param headers what `objdump -p` prints of it.
 * @returns a line for each symbol, library and folder of libraries that a module of a release may not ask for.
 */
export function tooNew(dynamic, headers) {
  const symbols = [...dynamic.matchAll(/\*UND\*.*\(([A-Z_]+)_([\d.]+)\) +(\S+)/g)]
    .filter(([, family, version]) => newest[family] === undefined || compare(version, newest[family]) > 0)
    .map(([, family, version, name]) => `${name} of ${family} ${version}`);
  const libraries = [...headers.matchAll(/^ *NEEDED +(\S+)/gm)].map(([, name]) => name);
  const paths = [...headers.matchAll(/^ *(?:RPATH|RUNPATH) +(\S+)/gm)].map(([, path]) => `libraries in ${path}`);
  return [...symbols, ...libraries.filter((name) => !usual.test(name)).map((name) => `the library ${name}`), ...paths];
}

/** @throws Error naming what a compiled module asks for beyond glibc 2.31. */
export async function checkSymbols(file) {
  const options = { maxBuffer: 1 << 26 };
  const [dynamic, headers] = await Promise.all(
    ["-T", "-p"].map((flag) => promisify(execFile)("objdump", [flag, file], options)),
  );
  const found = tooNew(dynamic.stdout, headers.stdout);
  if (found.length === 0) return;
  const some = found.slice(0, 8).join(", ");
  const more = found.length > 8 ? ` and ${found.length - 8} more` : "";
  throw new Error(`${file} would not run on glibc ${newest.GLIBC}: it asks for ${some}${more} (see kernels/glibc/).`);
}
