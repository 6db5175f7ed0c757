// Writes the tables that the code itself makes into the pages, each between its markers:
//   <!-- table: options of profile -->
//   <!-- end of table -->
//   node scripts/docs-tables.js [--check]     npm run build first; --check writes nothing, and fails where a page is stale
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { memoryTables } from "./docs/memory.js";
import { optionTables } from "./docs/options.js";

const makers = new Map(Object.entries({ ...memoryTables, ...optionTables }));
const folder = join(dirname(dirname(fileURLToPath(import.meta.url))), "docs");
const marked = /<!-- table: (.+?) -->[\s\S]*?<!-- end of table -->/g;
const wrong = [];
const written = new Set();

for (const name of readdirSync(folder).filter((each) => each.endsWith(".md"))) {
  const file = join(folder, name);
  const text = readFileSync(file, "utf8");
  const made = new Map();
  for (const [, title] of text.matchAll(marked)) {
    const make = makers.get(title);
    if (make) made.set(title, await make());
    else wrong.push(`docs/${name} has a place for "${title}", which nobody makes.`);
    written.add(title);
  }
  const filled = text.replace(marked, (before, title) =>
    made.has(title) ? `<!-- table: ${title} -->\n\n${made.get(title)}\n\n<!-- end of table -->` : before,
  );
  if (filled === text) continue;
  if (process.argv.includes("--check")) wrong.push(`docs/${name} is stale: run node scripts/docs-tables.js.`);
  else writeFileSync(file, filled);
}
for (const title of makers.keys()) if (!written.has(title)) wrong.push(`No page has a place for "${title}".`);
for (const sentence of wrong) console.error(sentence);
if (wrong.length > 0) process.exitCode = 1;
else console.log("The tables of docs/ are as the code says.");
