import { spawnSync } from "node:child_process";
import { cpSync, mkdirSync, mkdtempSync, readdirSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { execa } from "execa";
import { afterEach, beforeEach, expect, test } from "vitest";
import { checkNames } from "../../src/doctor/names.js";
import { packageRoot } from "../../src/paths.js";
import { documentSchemas } from "../../src/views/documents.js";

let folder = "";
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "ditrun-doctor-test-"));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

/** Runs it. @param shell a line of sh that starts it as `"$@"`. */
async function doctor(args: readonly string[], { env = {}, root = packageRoot, shell = 'exec "$@"' } = {}) {
  const words = [process.execPath, join(root, "bin", "ditrun.js"), "doctor", ...args];
  const { exitCode, stdout, stderr } = await execa("sh", ["-c", shell, "sh", ...words], {
    ...{ reject: false, stdin: "ignore" },
    env: { DITRUN_KERNELS: "", MASTER_PORT: "", COLUMNS: "80", HF_HUB_CACHE: join(folder, "hub"), ...env },
  });
  // No stack is shown, whatever is broken.
  expect(`${stdout}${stderr}`).not.toMatch(/\n {4}at |node:internal/);
  return { exitCode, stdout, stderr };
}

const may = (...words: readonly string[]) => {
  const [program = "", ...args] = words;
  return spawnSync(program, args, { stdio: "ignore" }).status === 0;
};

test("this host, where ditrun works, has no problem, and no warning of ditrun itself", async () => {
  const { exitCode, stdout, stderr } = await doctor(["--json"]);
  const document = documentSchemas.doctor.parse(JSON.parse(stdout));
  expect(document.checks.map(({ check }) => check)).toEqual(checkNames.filter((name) => !/rates|bandwidth/.test(name)));
  expect(document.checks.filter(({ state }) => state === "problem")).toEqual([]);
  const own = ["install", "gpus", "kernels", "links", "network", "files"];
  expect(document.checks.filter(({ state, section }) => state === "warning" && own.includes(section))).toEqual([]);
  expect(exitCode).toBe(0);
  expect(stderr).toMatch(/^ {2}✓ CPU module {5}\S.*, tried$/m);
  expect(stderr).toMatch(/^Verdict: /m);
  expect(readdirSync(folder)).toEqual([]);
});

test("parts that are named, measured too", async () => {
  const { exitCode, stdout } = await doctor(["--only", "cpu-rates", "--only", "bandwidth", "--only", "container"]);
  expect(stdout).toMatch(/^ {2}✓ Rates {10}\d+ GFLOP\/s of \w+ products, copies at \d+ GB\/s$/m);
  expect(stdout).toMatch(/^ {2}✓ Bandwidth {6}\d+ (?:to \d+ )?GB\/s from one /m);
  expect(stdout).toContain("Verdict: nothing is missing: 3 checks passed.");
  expect(exitCode).toBe(0);
});

test("koffi and zeromq that cannot be loaded are lines, and so is what needs them", async () => {
  for (const name of ["bin", "dist", "configs", "package.json"]) {
    cpSync(join(packageRoot, name), join(folder, name), { recursive: true });
  }
  symlinkSync(join(packageRoot, "build"), join(folder, "build"));
  const packages = join(folder, "node_modules");
  for (const name of readdirSync(join(packageRoot, "node_modules"))) {
    mkdirSync(packages, { recursive: true });
    if (name !== "koffi" && name !== "zeromq")
      symlinkSync(join(packageRoot, "node_modules", name), join(packages, name));
  }
  mkdirSync(join(packages, "koffi"));
  writeFileSync(join(packages, "koffi", "package.json"), '{ "name": "koffi", "main": "index.js" }');
  writeFileSync(join(packages, "koffi", "index.js"), 'throw new Error("invalid ELF header");');
  const { exitCode, stdout } = await doctor(["--only", "install", "--only", "kernels"], { root: folder });
  expect(stdout).toMatch(
    /✗ koffi {10}it cannot be used, and workers call the kernel modules through it: invalid ELF header\n.*npm rebuild koffi/,
  );
  expect(stdout).toMatch(/✗ ZeroMQ {9}it cannot be used, .*: Cannot find package 'zeromq'/);
  expect(stdout).toMatch(
    /✗ CPU module {5}A process that tried .*libditrun_cpu.so exited with code 1 \(Error: invalid ELF header\)\.\n/,
  );
  expect(stdout).toContain("Verdict: 3 problems (koffi, zeromq, cpu-module).");
  expect(exitCode).toBe(1);
});

test("too few open files for Node.js itself are a sentence", async () => {
  const { exitCode, stdout, stderr } = await doctor([], { shell: 'ulimit -n 32; exec "$@"' });
  expect(stderr).toBe(
    "ditrun: Only 32 files may be open at once, and the launcher needs 256: raise the limit with ulimit -n 1024, or where the container or service is set up.",
  );
  expect([exitCode, stdout]).toEqual([3, ""]);
});

test("a scheduler's variables that contradict each other, a port that is none, a variable without GPUs", async () => {
  const env = { PET_NNODES: "2", PET_NODE_RANK: "5", MASTER_PORT: "banana", CUDA_VISIBLE_DEVICES: "banana" };
  const { exitCode, stdout } = await doctor(["--only", "network", "--only", "driver"], { env });
  expect(stdout).toMatch(/✗ Port {11}MASTER_PORT=banana is no port\n {19}→ Unset it/);
  expect(stdout).toMatch(/✗ Hosts {10}PET_NNODES is 2, but nothing says where node 0 is: give --master-addr\./);
  expect(exitCode).toBe(1);
});

test.skipIf(process.getuid?.() !== 0)("without HOME and an entry in /etc/passwd, the cache has no place", async () => {
  const { exitCode, stdout } = await doctor(["--only", "files", "--only", "ditrun"], {
    ...{ env: { HF_HUB_CACHE: "" }, shell: 'unset HOME; exec setpriv --reuid 54321 --clear-groups "$@"' },
  });
  expect(stdout).toMatch(/! Hub cache {6}The home folder is not known: .* set HF_HOME to a folder\./);
  expect(exitCode).toBe(0);
});

test.skipIf(!may("unshare", "-n", "true"))("a network whose loopback is down", async () => {
  const { exitCode, stdout } = await doctor(["--only", "network"], { shell: 'exec unshare -n "$@"' });
  expect(stdout).toMatch(
    /✗ Loopback {7}127\.0\.0\.1 cannot be reached: there is no way to it\n {19}→ Set the interface up/,
  );
  expect(exitCode).toBe(1);
});

test.skipIf(!may("unshare", "-m", "mount", "-t", "tmpfs", "none", "/dev/shm"))(
  "/dev/shm that is read-only, and one that is tiny",
  async () => {
    const shell = (options: string) =>
      `exec unshare -m sh -c 'mount -t tmpfs -o ${options} none /dev/shm && exec "$@"' sh "$@"`;
    const readOnly = await doctor(["--only", "shm"], { shell: shell("ro") });
    expect(readOnly.stdout).toMatch(
      /[!✗] \/dev\/shm {7}nothing can be written: the file system is read-only\n.*--shm-size/,
    );
    const tiny = await doctor(["--only", "shm"], { shell: shell("size=4m") });
    expect(tiny.stdout).toMatch(/! \/dev\/shm {7}4\.0 MiB free, and .*\n.*--shm-size/);
  },
);
