import { accessSync, constants, existsSync, statSync } from "node:fs";
import { delimiter, join } from "node:path";
import { DitrunError } from "../../failure.js";

/** How the words after the options are to be taken. */
export interface ProgramWishes {
  readonly module: boolean;
  /** A .py file is run by itself. */
  readonly noPython: boolean;
  readonly runPath: boolean;
}

export interface ProgramLine {
  readonly command: readonly [program: string, ...rest: string[]];
  readonly isPython: boolean;
}

/** What runpy needs to be told for a program to see its own words. */
const runpy = "import runpy, sys; sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')";

type Environment = Readonly<Record<string, string | undefined>>;

/**
 * The program that the words name: a Python file or module with the Python of the virtual environment, anything else as it is.
 * Python does not hold back its lines (-u). @throws DitrunError where there is no such program, or none was named.
 */
export function programOf(words: readonly string[], wishes: ProgramWishes, environment: Environment): ProgramLine {
  const [first, ...rest] = words;
  if (first === undefined || first === "")
    throw new DitrunError("ERR_COMMAND_LINE", "Name a program after the options: ditrun run --nproc 8 train.py.");
  const { module, noPython, runPath } = wishes;
  if (module && noPython)
    throw new DitrunError("ERR_OPTION_CONFLICT", "--module and --no-python exclude each other: leave one out.");
  if (module) return { command: [pythonOf(environment), "-u", "-m", first, ...rest], isPython: true };
  if (runPath || (!noPython && first.endsWith(".py"))) {
    if (!existsSync(first)) throw new DitrunError("ERR_FILE_READ", `There is no file ${first} to run.`);
    const call = runPath ? ["-c", runpy] : [];
    return { command: [pythonOf(environment), "-u", ...call, first, ...rest], isPython: true };
  }
  const path = pathOf(first, environment);
  return { command: [path, ...rest], isPython: /(^|\/)python[\d.]*$/.test(path) };
}

/** PYTHON_EXEC as torchrun has it, the virtual environment's, or the first in PATH. */
function pythonOf({ PYTHON_EXEC, VIRTUAL_ENV, ...environment }: Environment): string {
  if (PYTHON_EXEC) return PYTHON_EXEC;
  const own = VIRTUAL_ENV ? join(VIRTUAL_ENV, "bin", "python") : "";
  if (own !== "" && isProgram(own)) return own;
  const found = ["python3", "python"].find((name) => inPath(name, environment));
  if (found !== undefined) return found;
  throw new DitrunError(
    "ERR_RANK_NOT_STARTED",
    "There is no python3 in PATH: activate its environment, or set PYTHON_EXEC.",
  );
}

function pathOf(word: string, environment: Environment): string {
  if (!word.includes("/") && inPath(word, environment)) return word;
  const path = word.includes("/") ? word : `./${word}`;
  if (isProgram(path)) return path;
  if (existsSync(path) && statSync(path).isFile())
    throw new DitrunError(
      "ERR_RANK_NOT_STARTED",
      `${word} may not be run: make it executable with chmod +x, or name what runs it.`,
    );
  const where = word.includes("/") ? "" : ", neither in PATH nor here";
  throw new DitrunError("ERR_RANK_NOT_STARTED", `There is no program ${word}${where}.`);
}

function inPath(name: string, { PATH = "" }: Environment): boolean {
  return PATH.split(delimiter).some((folder) => folder !== "" && isProgram(join(folder, name)));
}

function isProgram(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return statSync(path).isFile();
  } catch {
    return false;
  }
}
