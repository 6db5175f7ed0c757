import { readFileSync } from "node:fs";
import { z } from "zod";

// schemas/ lists the names and types of fields in the published definitions, as far as the manifests go into them. Each file names its source.

export interface Schema {
  readonly type: string;
  readonly required?: readonly string[] | undefined;
  readonly properties?: Readonly<Record<string, Schema>> | undefined;
  readonly items?: Schema | undefined;
  readonly additionalProperties?: Schema | undefined;
  readonly enum?: readonly unknown[] | undefined;
  readonly minimum?: number | undefined;
}

const schemaOf: z.ZodType<Schema> = z.lazy(() =>
  z.strictObject({
    type: z.enum(["object", "array", "string", "integer", "boolean", "number", "int-or-string"]),
    required: z.array(z.string()).optional(),
    properties: z.record(z.string(), schemaOf).optional(),
    items: schemaOf.optional(),
    additionalProperties: schemaOf.optional(),
    enum: z.array(z.unknown()).optional(),
    minimum: z.number().optional(),
  }),
);

/** What is wrong with a value, a sentence each. */
export function faults(value: unknown, schema: Schema, path: string): string[] {
  const { type, properties, required = [], items, additionalProperties } = schema;
  if (!isOf(type, value)) return [`${path} is no ${type}`];
  const found: string[] = [];
  if (schema.enum && !schema.enum.includes(value)) found.push(`${path} is none of ${schema.enum.join(", ")}`);
  if (schema.minimum !== undefined && Number(value) < schema.minimum) found.push(`${path} is below ${schema.minimum}`);
  if (Array.isArray(value)) {
    if (items) found.push(...value.flatMap((each, index) => faults(each, items, `${path}[${index}]`)));
  } else if (typeof value === "object" && value !== null) {
    found.push(...required.filter((name) => !(name in value)).map((name) => `${path} has no ${name}`));
    for (const [name, each] of Object.entries(value)) {
      const own = properties ? properties[name] : additionalProperties;
      if (own) found.push(...faults(each, own, `${path}.${name}`));
      else if (properties) found.push(`${path} has no field ${name}`);
    }
  }
  return found;
}

function isOf(type: string, value: unknown): boolean {
  if (type === "array") return Array.isArray(value);
  if (type === "object") return typeof value === "object" && value !== null && !Array.isArray(value);
  if (type === "integer") return Number.isInteger(value);
  if (type === "int-or-string") return Number.isInteger(value) || typeof value === "string";
  return typeof value === type;
}

/** What a kind of object may have, as its definition says. */
export function published(kind: string): Schema {
  const text = readFileSync(new URL(`schemas/${kind}.json`, import.meta.url), "utf8");
  return z.strictObject({ source: z.string().min(1), schema: schemaOf }).parse(JSON.parse(text)).schema;
}
