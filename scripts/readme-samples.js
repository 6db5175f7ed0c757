// Runs the commands that the pages show the output of, and writes what they print between the markers there:
//   <!-- sample: ditrun --nproc 8 --cp 4 --tp 2 profile -->
//   <!-- end of sample -->
// A marker's command may end in 2>&1 for stderr as well, and in | head N for the first N lines.
//   node scripts/readme-samples.js [PAGE…]     all pages without one; npm run build first
import { spawnSync } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const program = join(root, "bin/ditrun.js");
const marked = /^<!-- sample: (.+?) -->\n[\s\S]*?^<!-- end of sample -->$/gm;

/** Words of a command, as a shell takes them apart that knows double quotes alone. */
const wordsOf = (command) => [...command.matchAll(/"([^"]*)"|\S+/g)].map(([word, quoted]) => quoted ?? word);

/** Without what is of this machine alone: folders have names that readers know, and why there is no GPU is left out. */
function shared(text, folder) {
  return text
    .replace(/^ditrun: This runs on the CPU\..*\n/gm, "")
    .replaceAll(folder, "/home/you")
    .replaceAll(root, "/home/you/ditrun")
    .replace(/[ \t]+$/gm, "");
}

/** The output of a marker's command, run in an empty folder as on a terminal of 80 columns. */
function outputOf(marker) {
  const [, line, both, most] = /^(.*?)( 2>&1)?(?: \| head (\d+))?$/.exec(marker) ?? [];
  const [name, ...words] = wordsOf(line);
  if (name !== "ditrun") throw new Error(`A sample runs ditrun, not ${name}: ${marker}`);
  const folder = mkdtempSync(join(tmpdir(), "sample-"));
  try {
    const env = { ...process.env, COLUMNS: "80", NO_COLOR: "1" };
    const { stdout, stderr } = spawnSync(process.execPath, [program, ...words], { cwd: folder, env, encoding: "utf8" });
    const text = shared(both ? stderr + stdout : stdout, folder).trimEnd();
    if (text === "") throw new Error(`${line} printed nothing: ${stderr}`);
    return most === undefined ? text : text.split("\n").slice(0, Number(most)).join("\n");
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

const pages = ["README.md", ...readdirSync(join(root, "docs")).map((name) => `docs/${name}`)];
const wanted = process.argv.length > 2 ? process.argv.slice(2) : pages.filter((name) => name.endsWith(".md"));
const known = new Map();
for (const page of wanted) {
  const file = join(root, page);
  const text = readFileSync(file, "utf8");
  const filled = text.replace(marked, (_, marker) => {
    console.log(`${page}: ${marker}`);
    if (!known.has(marker)) known.set(marker, outputOf(marker));
    return `<!-- sample: ${marker} -->\n\`\`\`text\n${known.get(marker)}\n\`\`\`\n<!-- end of sample -->`;
  });
  if (filled !== text) writeFileSync(file, filled);
}
