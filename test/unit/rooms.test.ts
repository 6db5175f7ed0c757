import { existsSync, readdirSync, readFileSync } from "node:fs";
import { dirname, join, normalize } from "node:path";
import { expect, test } from "vitest";
import { packageRoot } from "../../src/paths.js";

// docs/architecture.md names the rooms; these rules keep them apart. A rule that the code does not keep yet has its places below.

/** Files of src/ by their path in it. */
type Sources = ReadonlyMap<string, string>;

interface Breach {
  readonly rule: string;
  readonly file: string;
  /** The file that is imported, or the text that stands in this one. */
  readonly what: string;
}

/** Breaches that are known, each with what ends it. One that is mended must leave this list. `what` left out: whatever the file has. */
const exceptions: readonly { rule: string; file: string; what?: string; until: string }[] = [
  { rule: "arrows", file: "worker/weights/source.ts", until: "shares stand in comm/" },
  { rule: "arrows", file: "worker/weights/wide.ts", until: "shares stand in comm/" },
  { rule: "environment", file: "worker/life.ts", until: "worker/environment reads it" },
  { rule: "environment", file: "launcher/starter.ts", until: "cli/interrupts passes it in" },
  { rule: "environment", file: "engine/choose-device.ts", until: "openEngine is given it" },
];

/** What several rooms stand on, and what knows no room. */
const ground = ["failure", "failure-codes", "limits", "nearest", "text", "paths", "version"];
const bytes = ["files", "formats", ...ground];
/** What both processes are told: shapes of models, plans, tasks and messages. */
const said = ["schemas", "protocol", ...ground];
const aboveAll = [
  "index",
  "client",
  "serve",
  "doctor",
  "cli",
  "views",
  "engine",
  "launcher",
  "models",
  "plan",
  "hub",
  "video",
];

/** What each room may import besides itself. A room is a folder of src/, the two schemas or a file; in worker/ a folder of that. */
const arrows: Readonly<Record<string, readonly string[]>> = {
  ...Object.fromEntries(ground.map((room) => [room, ground])),
  files: ground,
  formats: bytes,
  schemas: ground,
  protocol: ["schemas", ...ground],
  sampling: ground,
  hub: bytes,
  video: bytes,
  models: ["hub", "schemas", "protocol", ...bytes],
  plan: ["models", "schemas", ...bytes],
  launcher: ["protocol messages", ...bytes],
  engine: ["launcher", "models", "plan", "sampling", "hub", "video", ...said, ...bytes],
  client: ["failure"],
  views: ["client", "engine", "models", "plan", ...said],
  cli: [...aboveAll, "sampling", ...said, ...bytes],
  serve: [...aboveAll, "sampling", ...said, ...bytes],
  // It runs in a browser, and knows of the server what anybody is told.
  "serve/page": ["serve"],
  doctor: [...aboveAll, "sampling", ...said, ...bytes],
  index: ["client", "engine", "launcher", "models", "plan", ...said],
  "worker/runtime": said,
  "worker/ops": ["worker/runtime", ...said],
  "worker/comm": ["worker/ops", "worker/runtime", "worker/life", ...said],
  "worker/weights": ["worker/ops", "worker/runtime", ...said, ...bytes],
  "worker/layers": ["worker/comm", "worker/weights", "worker/ops", "worker/runtime", ...said],
  "worker/models": [
    ...["worker/layers", "worker/comm", "worker/weights", "worker/ops", "worker/runtime", "worker/life"],
    ...["models", "sampling", ...said, ...bytes],
  ],
  "worker/tasks": [
    ...["worker/models", "worker/layers", "worker/comm", "worker/weights", "worker/ops", "worker/runtime"],
    ...["worker/life", "models", "sampling", ...said, ...bytes],
  ],
  "worker/life": ["worker/runtime", "worker/tasks", ...said],
  "worker/examine": ["worker/runtime", ...said],
};

/** Texts that belong to few places, by rule. Comments do not count. */
const texts: Readonly<Record<string, { text: RegExp; at: readonly RegExp[] }>> = {
  families: { text: /kind\s*[!=]==?\s*"(?:dit|wan)"|case "(?:dit|wan)":/, at: [/^models\/registry\.ts$/] },
  groups: { text: /instanceof \w*Group\b/, at: [] },
  endings: { text: /\bprocess\.exit\(/, at: [/^cli\//, /^worker\/life\.ts$/] },
  signals: {
    text: /(?<![\w#.])process\.(?:on|once|addListener|prependListener)\(/,
    at: [/^cli\//, /^launcher\/reaper\.ts$/, /^worker\/(?:life|early|scheduler-warnings)\.ts$/],
  },
  "kernel calls": {
    text: /\bkernels\.(?:call|create|queue)(?:Blocking)?\(|\.launch\(|\bnew Kernels\(/,
    at: [/^worker\/(?:runtime|ops)\//],
  },
  environment: { text: /\bprocess\.env\b/, at: [/^(?:cli|launcher\/cluster|hub)\//, /^worker\/environment\.ts$/] },
  stdout: {
    text: /(?<![\w#.])(?:process\.stdout|console\.(?:log|info|debug))\b/,
    at: [/^cli\//, /^worker\/(?:probe|examine\/main)\.ts$/],
  },
};

const root = join(packageRoot, "src");

function readSources(): Sources {
  const files = readdirSync(root, { recursive: true, encoding: "utf8" }).filter((file) => /\.tsx?$/.test(file));
  return new Map(files.sort().map((file) => [file, readFileSync(join(root, file), "utf8")]));
}

/** Without comments; texts in quotes stay. */
function codeOf(source: string): string {
  return source.replace(
    /("(?:\\.|[^"\\\n])*"|`(?:\\.|[^`\\])*`)|\/\/.*|\/\*[\s\S]*?\*\//g,
    (_, quoted?: string) => quoted ?? "",
  );
}

/** The files of src/ that one imports, types and later imports included. */
function importsOf(file: string, code: string): string[] {
  const found = code.matchAll(/(?:\bfrom\s*|\bimport\s*\(?\s*)"(\.[^"]+)\.js"/g);
  const paths = [...found].map(([, path = ""]) => normalize(join(dirname(file), path)));
  return paths.map((path) => (existsSync(join(root, `${path}.tsx`)) ? `${path}.tsx` : `${path}.ts`));
}

function roomOf(file: string): string {
  if (/^(?:models|plan)\/schema\.ts$/.test(file)) return "schemas";
  const [first = "", second = "", third] = file.split("/");
  if (first === "serve" && second === "page") return "serve/page";
  if (first !== "worker") return first.replace(/\.ts$/, "");
  return third === undefined ? "worker/life" : `worker/${second}`;
}

function mayImport(file: string, imported: string): boolean {
  const from = roomOf(file);
  const to = roomOf(imported);
  const allowed = arrows[from] ?? [];
  if (from === to || allowed.includes(to)) return true;
  return to === "protocol" && !/\/(?:job|results)\.ts$/.test(imported) && allowed.includes("protocol messages");
}

/** Files that import each other in a circle: the first one found, from a file back to it. */
function circleIn(imports: ReadonlyMap<string, readonly string[]>): string[] | undefined {
  const done = new Set<string>();
  const walk = (file: string, path: readonly string[]): string[] | undefined => {
    if (path.includes(file)) return [...path.slice(path.indexOf(file)), file];
    if (done.has(file)) return undefined;
    for (const next of imports.get(file) ?? []) {
      const circle = walk(next, [...path, file]);
      if (circle) return circle;
    }
    done.add(file);
    return undefined;
  };
  for (const file of imports.keys()) {
    const circle = walk(file, []);
    if (circle) return circle;
  }
  return undefined;
}

function breachesOf(sources: Sources): Breach[] {
  return [...sources].flatMap(([file, source]) => {
    const code = codeOf(source);
    const wrong = importsOf(file, code).filter((imported) => !mayImport(file, imported));
    const found = Object.entries(texts).flatMap(([rule, { text, at }]) => {
      const [what] = text.exec(code) ?? [];
      return what === undefined || at.some((place) => place.test(file)) ? [] : [{ rule, file, what }];
    });
    return [...wrong.map((what) => ({ rule: "arrows", file, what })), ...found];
  });
}

const sources = readSources();
const breaches = breachesOf(sources);
const covers = (exception: (typeof exceptions)[number], { rule, file, what }: Breach) =>
  exception.rule === rule && exception.file === file && (exception.what ?? what) === what;

test("src/ keeps the rules of its rooms", () => {
  const unknown = breaches.filter((breach) => !exceptions.some((exception) => covers(exception, breach)));
  expect(unknown.map(({ rule, file, what }) => `${rule}: src/${file} has ${what}`)).toEqual([]);
});

test("an exception that nothing needs any more is taken from the list", () => {
  const idle = exceptions.filter((exception) => !breaches.some((breach) => covers(exception, breach)));
  expect(idle.map(({ rule, file }) => `${rule}: ${file}`)).toEqual([]);
});

test("no files import each other in a circle", () => {
  // Where an arrow is known to point the wrong way, that is the one to turn.
  const turned = (file: string, what: string) =>
    exceptions.some((exception) => covers(exception, { rule: "arrows", file, what }) && !mayImport(file, what));
  const imports = new Map(
    [...sources].map(([file, source]) => [file, importsOf(file, codeOf(source)).filter((what) => !turned(file, what))]),
  );
  expect(circleIn(imports)).toBeUndefined();
  const found = [...imports.values()].flat();
  expect(found.length).toBeGreaterThan(500);
  expect(found.filter((file) => !sources.has(file))).toEqual([]);
  expect(circleIn(new Map([...imports, ["failure.ts", ["cli/main.ts"]]]))).toContain("cli/main.ts");
});

test("every room has its arrows, and none but the known ones is there", () => {
  const rooms = new Set([...sources.keys()].map(roomOf));
  expect([...rooms].filter((room) => !(room in arrows))).toEqual([]);
});

test.each([
  ["arrows", "launcher/a.ts", 'import { x } from "../models/load.js";'],
  ["arrows", "launcher/a.ts", 'import type { Task } from "../protocol/job.js";'],
  ["arrows", "worker/tasks/a.ts", 'const { x } = await import("../../engine/engine.js");'],
  ["arrows", "models/wan/a.ts", 'import "../../cli/main.js";'],
  ["arrows", "worker/layers/a.ts", 'export { x } from "../models/dit/dit.js";'],
  ["arrows", "protocol/a.ts", 'import {\n  x,\n} from "../plan/resolve.js";'],
  ["families", "plan/a.ts", 'if (model.kind !== "wan") x();'],
  ["groups", "worker/layers/a.ts", "if (cp instanceof PeerGroup) x();"],
  ["endings", "launcher/a.ts", "process.exit(1);"],
  ["signals", "engine/a.ts", 'process.once("SIGINT", x);'],
  ["kernel calls", "worker/models/dit/a.ts", 'device.kernels.create("malloc", 4, 0);'],
  ["kernel calls", "worker/layers/a.ts", 'device.launch("copy", { phase, work, args });'],
  ["environment", "models/a.ts", "const { HOME } = process.env;"],
  ["stdout", "views/a.ts", "process.stdout.write(x);"],
  ["stdout", "plan/a.ts", "console.log(x);"],
])("%s: seen in src/%s", (rule, file, source) => {
  expect(breachesOf(new Map([[file, source]])).map((breach) => breach.rule)).toEqual([rule]);
});

test.each([
  ["launcher/a.ts", 'import { x } from "../protocol/messages.js";'],
  ["protocol/a.ts", 'import { planSchema } from "../plan/schema.js";'],
  ["plan/a.ts", '// if (model.kind === "dit")\n/* process.exit(1) */'],
  ["worker/layers/a.ts", 'import { x } from "../comm/group.js";'],
])("what is allowed passes in src/%s", (file, source) => {
  expect(breachesOf(new Map([[file, source]]))).toEqual([]);
});
