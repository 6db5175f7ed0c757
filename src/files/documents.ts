import { readdir } from "node:fs/promises";
import { basename, join } from "node:path";
import { type Document, parseDocument } from "yaml";
import { z } from "zod";
import { DitrunError, type FailureCode, messageOf } from "../failure.js";
import { nearest } from "../nearest.js";
import { fileFailure } from "./file-failure.js";
import { shownPath } from "./shown-path.js";
import { readTextFile } from "./text-file.js";

/**
 * Finds a YAML document by file or by name.
 * @param nameOrFile a path (with a slash or an ending: .yaml, .yml, or .json, which is YAML too) or the name of a file in the
 * folder, without its ending.
 * @param others names that the caller understands as well, for messages.
 * @throws DitrunError when no shipped document has that name.
 */
export async function findDocument(
  kind: string,
  folder: string,
  nameOrFile: string,
  others: readonly string[] = [],
): Promise<string> {
  if (/\.(?:ya?ml|json)$/.test(nameOrFile) || nameOrFile.includes("/")) return nameOrFile;
  const names = (await readdir(folder)).filter((file) => file.endsWith(".yaml")).map((file) => basename(file, ".yaml"));
  if (names.includes(nameOrFile)) return join(folder, `${nameOrFile}.yaml`);
  const all = [...names.sort(), ...others];
  const meant = nearest(nameOrFile, all);
  const way =
    meant === undefined
      ? `choose one of ${all.join(", ")}, or give a file that ends in .yaml.`
      : `did you mean ${meant}?`;
  throw new DitrunError("ERR_DOCUMENT_UNKNOWN", `There is no ${kind} named "${nameOrFile}": ${way}`);
}

/**
 * Reads and checks a YAML file.
 * @throws DitrunError naming the file, the path in it, the value found and what is allowed.
 */
export async function readDocument<T>(file: string, schema: z.ZodType<T>): Promise<T> {
  const text = await readTextFile(file, MOST_YAML_BYTES).catch((error: unknown) => {
    throw new DitrunError("ERR_FILE_READ", `${shownPath(file)} could not be read: ${fileFailure(error)}.`, {
      cause: error,
    });
  });
  return checkDocument(shownPath(file), parseYaml(text, shownPath(file)), schema);
}

/** Many times the longest plan; the time to parse more grows faster than its length. */
const MOST_YAML_BYTES = 2 ** 16;

/** @throws DitrunError for mistakes and for what a parser would only warn of, and for a document with nothing in it. */
function parseYaml(text: string, source: string): unknown {
  let document: Document.Parsed;
  try {
    document = parseDocument(text, { logLevel: "error" });
  } catch (error) {
    // The parser calls itself for each level.
    throw new DitrunError("ERR_YAML", `${source} is nested too deeply: ${messageOf(error)}.`, { cause: error });
  }
  const [mistake] = [...document.errors, ...document.warnings];
  if (mistake) {
    const where = mistake.linePos ? `, line ${mistake.linePos[0].line}, column ${mistake.linePos[0].col}` : "";
    const what = mistake.message.split("\n")[0]?.replace(/ at line \d+, column \d+:?$/, "");
    const words = mistake.code === "MULTIPLE_DOCS" ? "it holds more than one document" : what;
    throw new DitrunError("ERR_YAML", `${source}${where} is not valid YAML: ${words}.`);
  }
  let contents: unknown;
  try {
    contents = document.toJS();
  } catch (error) {
    // Aliases are only looked at here.
    throw new DitrunError("ERR_YAML", `${source} is not valid YAML: ${messageOf(error)}.`, { cause: error });
  }
  if (contents !== null) return contents;
  throw new DitrunError(
    "ERR_YAML",
    `${source} is empty; it must be a mapping of keys to values, as those in configs/ are.`,
  );
}

/** Checks a parsed document. @throws DitrunError as readDocument does, with this code. */
export function checkDocument<T>(
  source: string,
  document: unknown,
  schema: z.ZodType<T>,
  code: FailureCode = "ERR_SCHEMA",
): T {
  const checked = schema.safeParse(document);
  if (checked.success) return checked.data;
  const [issue] = checked.error.issues;
  throw new DitrunError(code, `${source}: ${issue ? describe(issue, document, schema) : "it is not valid"}.`);
}

function describe(issue: z.core.$ZodIssue, document: unknown, schema: z.ZodType): string {
  const path = pathText(issue.path);
  if (issue.code === "unrecognized_keys") {
    const parts = issue.keys.map((key) => pathText([...issue.path, key])).join(", ");
    const allowed = keysAllowed(schema, issue.path, document);
    const meant = nearest(issue.keys[0] ?? "", allowed);
    const guess = meant === undefined ? "" : ` (did you mean ${meant}?)`;
    return `${parts} is not a known key${guess}${allowed.length > 0 ? `; allowed here: ${allowed.join(", ")}` : ""}`;
  }
  const value = valueAt(document, issue.path);
  if (value === undefined) return `${path} is missing; it must be ${allowedBy(issue)}`;
  return `${path} is ${shortText(value)}; it must be ${allowedBy(issue)}${guessOf(issue, value)}`;
}

function guessOf(issue: z.core.$ZodIssue, value: unknown): string {
  if (issue.code !== "invalid_value" || typeof value !== "string") return "";
  const meant = nearest(value, issue.values.map(String));
  return meant === undefined ? "" : ` (did you mean ${meant}?)`;
}

const MOST_CHARACTERS = 100;

/** A value as its author would know it again; JSON has no infinity and no NaN. */
function shortText(value: unknown): string {
  const text = typeof value === "number" ? String(value) : JSON.stringify(value);
  return text.length <= MOST_CHARACTERS ? text : `${text.slice(0, MOST_CHARACTERS)} …`;
}

function allowedBy(issue: z.core.$ZodIssue): string {
  switch (issue.code) {
    case "invalid_value":
      return issue.values.length === 1 ? String(issue.values[0]) : `one of ${issue.values.map(String).join(", ")}`;
    case "invalid_type":
      return typeNames[issue.expected] ?? `of type ${issue.expected}`;
    case "too_small":
      return issue.origin === "string" ? "a text that is not empty" : `at least ${issue.minimum}`;
    case "too_big":
      return `at most ${issue.maximum}`;
    case "invalid_format":
      return "one line of text without control characters";
    case "invalid_union":
      return "options" in issue && Array.isArray(issue.options)
        ? `one of ${issue.options.join(", ")}`
        : "one of the forms allowed";
    default:
      return `different (${issue.message})`;
  }
}

const typeNames: Record<string, string> = {
  int: "a whole number",
  number: "a number",
  string: "a text",
  boolean: "true or false",
  object: "a mapping of keys to values",
  array: "a list",
};

function pathText(path: readonly PropertyKey[]): string {
  if (path.length === 0) return "the document";
  return path.reduce<string>((text, key) => {
    if (typeof key === "number") return `${text}[${key}]`;
    return text === "" ? String(key) : `${text}.${String(key)}`;
  }, "");
}

function valueAt(document: unknown, path: readonly PropertyKey[]): unknown {
  return path.reduce<unknown>(
    (value, key) => (typeof value === "object" && value !== null ? Reflect.get(value, key) : undefined),
    document,
  );
}

const objectSchema = z.looseObject({
  properties: z.record(z.string(), z.unknown()).optional(),
  items: z.unknown().optional(),
  oneOf: z.array(z.unknown()).optional(),
  anyOf: z.array(z.unknown()).optional(),
});

/** The keys that the schema allows at a path, by way of its JSON schema. */
function keysAllowed(schema: z.ZodType, path: readonly PropertyKey[], document: unknown): string[] {
  let nodes: unknown[] = [z.toJSONSchema(schema, { io: "input" })];
  let value = document;
  for (const key of [...path, undefined]) {
    nodes = nodes.flatMap((node) => alternatives(node, value));
    if (key === undefined) break;
    nodes = nodes.map((node) => {
      const parsed = objectSchema.safeParse(node).data;
      return typeof key === "number" ? parsed?.items : parsed?.properties?.[String(key)];
    });
    value = valueAt(value, [key]);
  }
  return [...new Set(nodes.flatMap((node) => Object.keys(objectSchema.safeParse(node).data?.properties ?? {})))];
}

/** The forms of a union that fit the value's `kind`. */
function alternatives(node: unknown, value: unknown): unknown[] {
  const parsed = objectSchema.safeParse(node).data;
  const forms = parsed?.oneOf ?? parsed?.anyOf;
  if (!forms) return [node];
  const kind = valueAt(value, ["kind"]);
  return forms.filter((form) => kind === undefined || valueAt(form, ["properties", "kind", "const"]) === kind);
}
