// The install: what it leaves where nvcc cannot be used, and that it ends when it is told to. cmake and nvcc are stand-ins.
import { existsSync } from "node:fs";
import { cp, mkdir, mkdtemp, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { execa } from "execa";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { packageRoot } from "../../src/paths.js";

let folder = "";
let path = "";

/** cmake that makes nothing but build/libditrun_cpu.so and, where the compiler of the tree compiles, libditrun_cuda.so. */
const builder = `#!/bin/sh
mkdir -p build
case "$*" in
  *"-B build/cuda"*) echo configured ;;
  *"--build build/cuda"*) nvcc -c kernels/norm.cu && touch build/libditrun_cuda.so ;;
  *"--build build"*) touch build/libditrun_cpu.so ;;
esac`;

/** nvcc of a release, which ends with a word and a code at files of the module, or at every file. */
const nvcc = (release: string, broken = "nothing") => `#!/bin/sh
case "$*" in
  --version) echo "Cuda compilation tools, release ${release}, V${release}.1" ;;
  *${broken}*) echo "nvcc fatal : this is the cause" >&2; exit 3 ;;
esac`;

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "ditrun-build-"));
  await cp(join(packageRoot, "scripts"), join(folder, "scripts"), { recursive: true });
  await cp(join(packageRoot, "package.json"), join(folder, "package.json"));
  await mkdir(join(folder, "bin"));
  await cp(join(packageRoot, "bin", "node-version.js"), join(folder, "bin", "node-version.js"));
  await symlink(process.execPath, join(folder, "bin", "node"));
  path = `${join(folder, "bin")}:/usr/bin:/bin`;
});
afterEach(() => rm(folder, { recursive: true }));

const program = (name: string, text: string) => writeFile(join(folder, "bin", name), text, { mode: 0o755 });
const built = (device: string) => existsSync(join(folder, "build", `libditrun_${device}.so`));
const environment = (args = "") => ({ PATH: path, DITRUN_CMAKE_ARGS: args, CUDACXX: "", CUDA_PATH: "" });

async function build(args = "") {
  const options = { cwd: folder, env: environment(args), reject: false, all: true };
  const { exitCode, all } = await execa("node", ["scripts/build.js", "--kernels"], options);
  const lines = (all ?? "").trim().split("\n");
  return { exitCode, lines, last: lines.slice(-3) };
}

/** What the build leaves for commands that cannot use a GPU. */
const note = () => readFile(join(folder, "build", "cuda.txt"), "utf8");

describe("the CUDA module of a build", () => {
  test("is built where nvcc can build it, and an earlier build's reason is gone", async () => {
    await program("cmake", builder);
    await build();
    expect(await note()).toMatch(/nvcc is not on PATH/);
    await program("nvcc", nvcc("13.0"));
    const { exitCode, last } = await build();
    expect({ exitCode, cpu: built("cpu"), cuda: built("cuda") }).toEqual({ exitCode: 0, cpu: true, cuda: true });
    await expect(note()).rejects.toThrow("ENOENT");
    expect(last).toEqual([
      "ditrun: The CPU module is built: build/libditrun_cpu.so.",
      "The CUDA module is built: build/libditrun_cuda.so.",
      "Next: npx ditrun --nproc 8 --cp 4 --tp 2 profile",
    ]);
  });

  test.each([
    ["too old", nvcc("11.8"), /it is of CUDA 11\.8, and the first that knows C\+\+20 is 12\.0/],
    ["without a host compiler", nvcc("13.0", "smallest.cu"), /: nvcc fatal : this is the cause \(exit code 3\)\. /],
    ["that fails at the module", nvcc("13.0", "norm.cu"), /: nvcc fatal : this is the cause\. /],
    ["that does not start", "#!/nowhere/sh\n", /it could not be started \(ENOENT\)/],
    ["that says nothing", "#!/bin/sh\n", /names no release of CUDA/],
  ])("an nvcc %s leaves the CPU module, and no module of an earlier build", async (_, text, reason) => {
    await program("cmake", builder);
    await program("nvcc", text);
    await mkdir(join(folder, "build"));
    await writeFile(join(folder, "build", "libditrun_cuda.so"), "");
    const { exitCode, last } = await build();
    expect({ exitCode, cpu: built("cpu"), cuda: built("cuda") }).toEqual({ exitCode: 0, cpu: true, cuda: false });
    expect(last[1]).toMatch(/^The CUDA module is not built, since \/.*\/bin\/nvcc cannot be used: /);
    expect(last[1]).toMatch(reason);
    expect(last[1]).toContain("ditrun runs on the CPU. To try again: npm run build -- --kernels");
    expect(await note()).toBe(`${last[1]}\n`);
  });

  test("fails the build where DITRUN_CUDA=ON asks for it, and is left out where OFF does", async () => {
    await program("cmake", builder);
    await program("nvcc", nvcc("13.0", "norm.cu"));
    expect((await build("-DDITRUN_CUDA=ON")).exitCode).toBe(1);
    const { exitCode, last } = await build("-DDITRUN_CUDA=OFF");
    expect(exitCode).toBe(0);
    expect(last[1]).toBe(
      "The CUDA module is not built, as DITRUN_CUDA=OFF asks: ditrun runs on the CPU. For NVIDIA GPUs: npm run build -- --kernels",
    );
  });

  test("is not looked for in vain without a word", async () => {
    await program("cmake", builder);
    expect((await build()).last[1]).toMatch(
      /^The CUDA module is not built, since nvcc is not on PATH: .*npm run build/,
    );
  });
});

test("a CPU module that cannot be built fails the build", async () => {
  await program("cmake", "#!/bin/sh\necho 'no compiler' >&2; exit 7");
  const { exitCode, last } = await build();
  expect(exitCode).toBe(7);
  expect(last.join("\n")).toMatch(/no compiler\ncmake -S \. -B build .* failed with exit code 7\.$/);
});

test("a build shows every tenth of its work in a line, and of cmake nothing else", async () => {
  const lines = Array.from(
    { length: 40 },
    (_, file) => `echo '[ ${String(file * 2.5).split(".")[0]}%] Building CXX object x.o'`,
  );
  await program(
    "cmake",
    `${builder}\necho '-- Detecting CXX compile features'\necho 'x.cpp: warning: unused'\n${lines.join("\n")}`,
  );
  const { exitCode, lines: shown } = await build("-DDITRUN_CUDA=OFF");
  expect(exitCode).toBe(0);
  const tenths = [10, 20, 30, 40, 50, 60, 70, 80, 90].map((percent) => `ditrun: CPU module: ${percent} %`);
  expect(shown.slice(0, -3)).toEqual(tenths);
});

describe("a build that is told to end", () => {
  const slow = `#!/bin/sh
sleep 60 &
echo $$ $! > "${"$"}PIDS"
wait`;
  const runs = (pid: number) => existsSync(`/proc/${pid}`);

  /** @returns the processes of the stand-in for cmake, once they run. */
  async function pids(file: string): Promise<number[]> {
    return vi.waitFor(
      async () => {
        const found = (await readFile(file, "utf8")).trim().split(" ").map(Number);
        expect(found).toHaveLength(2);
        return found;
      },
      { timeout: 20_000 },
    );
  }

  test.each([
    ["node", ["scripts/build.js", "--kernels"], "SIGTERM"],
    ["node", ["scripts/build.js", "--kernels"], "SIGINT"],
    ["npm", ["run", "build", "--", "--kernels"], "SIGTERM"],
    ["npm", ["run", "build", "--", "--kernels"], "SIGKILL"],
  ] as const)("by a signal to %s %s %s ends what it started", async (command, args, signal) => {
    await program("cmake", slow);
    const file = join(folder, "pids");
    const options = { cwd: folder, env: { ...environment(), PIDS: file, PATH: `${path}:${process.env.PATH}` } };
    const running = execa(command, args, { ...options, reject: false });
    const started = await pids(file);
    running.kill(signal);
    if (command === "node") {
      const { exitCode, stderr } = await running;
      expect(exitCode).toBe(signal === "SIGTERM" ? 143 : 130);
      expect(stderr).toContain(`ditrun: ${signal}: the build is ended.`);
    }
    await vi.waitFor(() => expect(started.filter(runs)).toEqual([]), { timeout: 10_000, interval: 50 });
    await running;
  });
});
