import type { InspectedFile, InspectedPart } from "../models/wan/inspect.js";
import type { Plan } from "../plan/schema.js";
import { bytesInWords, counted } from "../text.js";
import { type Page, paint, prose } from "./page.js";
import { formatTable } from "./table.js";

/** What each worker holds under a plan. */
export interface Held {
  /** The plan, in words. */
  readonly words: string;
  bytes(part: InspectedPart): number | undefined;
}

/** What a file is, for people. */
export function inspectPage(page: Page, { file, format, parts, problem }: InspectedFile, held?: Held): string {
  const head = paint(page, "bold", format === null ? file : `${file}: ${format}`);
  const tables = parts.map((part) =>
    formatTable(
      page,
      [
        { head: part.part, align: "left", cell: ([name]: Row) => name },
        { head: part.what, align: "left", cell: ([, says]: Row) => says },
      ],
      rowsOf(part, held),
    ),
  );
  return [head, ...tables, ...(problem ? [prose(page, problem.message)] : [])].join("\n");
}

type Row = readonly [name: string, says: string];

function rowsOf(part: InspectedPart, held: Held | undefined): Row[] {
  const { layout, prefix, tensors, parameters, bytes, dialect, dtypes, ignored, tokenizer } = part;
  const counts = Object.entries(dtypes).sort(([, a], [, b]) => b - a);
  const heldBytes = held?.bytes(part);
  return [
    ["names", prefix === "" ? layout : `${layout}, below ${prefix}`],
    ["tensors", `${tensors}, ${(parameters / 1e6).toFixed(1)} million parameters, ${bytesInWords(bytes)}`],
    ["dtypes", counts.map(([dtype, count]) => `${count} ${dtype}`).join(", ")],
    ["converted", convertedWords(counts)],
    ...(dialect === null ? [] : [["scales", dialect] as const]),
    ...(tokenizer ? [["tokenizer", "in the file"] as const] : []),
    ...Object.entries(ignored).map(
      ([rule, names]) => ["ignored", `${counted(names.length, "tensor")}: ${rule}`] as const,
    ),
    ...(held && heldBytes !== undefined
      ? [["each worker", `${bytesInWords(heldBytes)} of weights under ${held.words}`] as const]
      : []),
  ];
}

/** Weights are held in the plan's dtype, bf16 unless it says otherwise. */
function convertedWords(counts: readonly (readonly [dtype: string, count: number])[]): string {
  const others = counts.filter(([dtype]) => dtype !== "BF16");
  if (others.length === 0) return "nothing, in a plan of bf16";
  return `${others.map(([dtype]) => dtype).join(", ")} to bf16, or to what the plan says, as it is loaded`;
}

/** The same for programs: what docs/schema/inspect.json has after the envelope. */
export function inspectDocument(files: readonly InspectedFile[], plan: Plan | undefined, held: Held | undefined) {
  return {
    plan: plan ?? null,
    files: files.map(({ file, format, parts, problem }) => ({
      ...{ file, format },
      problem: problem ? { message: problem.message, code: problem.code, exitCode: problem.exitCode } : null,
      parts: parts.map((part) => {
        const { model: _, ...rest } = part;
        return { ...rest, weightBytesPerRank: held?.bytes(part) ?? null };
      }),
    })),
  };
}
