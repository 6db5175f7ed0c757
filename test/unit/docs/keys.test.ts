import { readdirSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { z } from "zod";
import { parameterCount } from "../../../src/models/cost.js";
import { checkpointConfigSchema, diffusersConfigSchema, loadModel } from "../../../src/models/load.js";
import { ditModelSchema, textEncoderModelSchema, wanModelSchema } from "../../../src/models/schema.js";
import { presetOf } from "../../../src/models/wan/presets.js";
import { wanConfigSchema } from "../../../src/models/wan/tensors/config-metadata.js";
import { modelsDirectory, plansDirectory } from "../../../src/paths.js";
import { readPlan } from "../../../src/plan/resolve.js";
import { meshSize, planSchema } from "../../../src/plan/schema.js";
import { rowsOf, textOf } from "./pages.js";

/** A key of a document: its path, the values that it can have, and its default where the schema itself has one. */
interface Key {
  readonly path: string;
  readonly values: string;
  readonly fallback: string | undefined;
}

type JsonSchema = z.core.JSONSchema.BaseSchema;
const code = (text: string) => `\`${text}\``;

function valuesOf({ const: only, enum: several, type, minimum, maximum }: JsonSchema): string {
  if (only !== undefined) return code(String(only));
  if (several) return several.map((value) => code(String(value))).join(", ");
  if (type === "boolean") return "`true`, `false`";
  if (type === "integer") return `${minimum} to ${maximum}`;
  if (type === "string") return "text";
  if (type === "number") return "a number above 0";
  return type === "array" ? "a list" : "the keys below";
}

/** All keys of an object, those of objects and lists inside it too. An object whose keys all may be left out has no row. */
function keysOf(schema: JsonSchema, before = ""): Key[] {
  return Object.entries(schema.properties ?? {}).flatMap(([name, value]) => {
    if (typeof value === "boolean") throw new Error(`${name} has no schema.`);
    const path = `${before}${name}`;
    const fallback = value.default === undefined ? undefined : code(JSON.stringify(value.default).replaceAll('"', ""));
    const own: Key = { path, values: valuesOf(value), fallback };
    if (value.type === "object") {
      const inner = keysOf(value, `${path}.`);
      return value.required?.length ? [own, ...inner] : inner;
    }
    const { items } = value;
    const each = typeof items === "object" && !Array.isArray(items) ? keysOf(items, `${path}[].`) : [];
    return [own, ...each];
  });
}

const schemaOf = (schema: z.ZodType) => z.toJSONSchema(schema, { io: "input" });

/** Rows of one table of a page, by what stands above it. */
function tableBelow(page: string, heading: string): string[][] {
  const [, below = ""] = textOf(page).split(`\n${heading}\n`);
  const [, table = ""] = /\n(\|[\s\S]*?)(?:\n[^|]|$)/.exec(below) ?? [];
  return rowsOf(table).slice(1);
}

const names = (folder: string) => readdirSync(folder).map((name) => name.replace(/\.yaml$/, ""));

describe("docs/plans.md", () => {
  test("has every key of a plan, with its values and its default", () => {
    const table = tableBelow("docs/plans.md", "## Keys");
    const keys = keysOf(schemaOf(planSchema));
    expect(keys.length).toBeGreaterThan(15);
    expect(table.map(([key, values]) => `${key}: ${values}`)).toEqual(
      keys.map(({ path, values }) => `${code(path)}: ${values}`),
    );
    const fallbacks = Object.fromEntries(table.map(([key = "", , fallback]) => [key, fallback]));
    for (const { path, fallback } of keys)
      if (fallback !== undefined) expect({ path, fallback: fallbacks[code(path)] }).toEqual({ path, fallback });
  });

  test("has every plan that ships, with its workers", async () => {
    const table = tableBelow("docs/plans.md", "## Names and files");
    const shipped = await Promise.all(
      names(plansDirectory).map(async (name) => [code(name), String(meshSize((await readPlan(name)).mesh))]),
    );
    expect(table.map(([name, workers]) => [name, workers]).sort()).toEqual(shipped.sort());
  });
});

describe("docs/models.md", () => {
  test.each([
    ["### The DiT", ditModelSchema],
    ["### Wan", wanModelSchema],
  ])("%s has every key", (heading, schema) => {
    const rows = tableBelow("docs/models.md", heading);
    const keys = keysOf(schemaOf(schema));
    expect(keys.length).toBeGreaterThan(8);
    expect(rows.map(([key, values]) => `${key}: ${values}`)).toEqual(
      keys.map(({ path, values }) => `${code(path)}: ${values}`),
    );
  });

  test.each([
    ["### config.json of Wan", wanConfigSchema],
    ["The diffusers layout's `transformer/config.json` has these:", diffusersConfigSchema],
    ["### config.json of the DiT", checkpointConfigSchema],
  ])("%s has every key", (heading, schema) => {
    const rows = tableBelow("docs/models.md", heading);
    expect(rows.map(([key]) => key).sort()).toEqual(Object.keys(schema.shape).map(code).sort());
  });

  test("has every model that ships, with its parameters", async () => {
    const rows = rowsOf(textOf("docs/models.md").split("\n## ")[0] ?? "").slice(1);
    const listed = rows.map(([all = "", , parameters]) => ({ name: /`([^`]+)`/.exec(all)?.[1] ?? "", parameters }));
    const known = await Promise.all(
      listed.map(async ({ name, parameters }) => {
        const model = await loadModel(presetOf(name)?.config ?? name);
        const millions = parameterCount(model) / 1e6;
        const said = millions < 100 ? `${Math.round(millions)} million` : `${(millions / 1e3).toFixed(1)} billion`;
        expect({ name, parameters }).toEqual({ name, parameters: said });
        return presetOf(name)?.config ?? name;
      }),
    );
    expect(known.sort()).toEqual(names(modelsDirectory).sort());
  });
});

test("keys of objects and lists are found", () => {
  const schema = z.strictObject({
    a: z.int().min(1).max(3).default(2),
    b: z.strictObject({ c: z.enum(["x", "y"]).default("x") }).prefault({}),
    d: z.array(z.strictObject({ e: z.string() })).default([]),
    f: textEncoderModelSchema.pick({ heads: true }),
  });
  expect(keysOf(schemaOf(schema))).toEqual([
    { path: "a", values: "1 to 3", fallback: "`2`" },
    { path: "b.c", values: "`x`, `y`", fallback: "`x`" },
    { path: "d", values: "a list", fallback: "`[]`" },
    { path: "d[].e", values: "text", fallback: undefined },
    { path: "f", values: "the keys below", fallback: undefined },
    { path: "f.heads", values: "1 to 10000", fallback: undefined },
  ]);
});
