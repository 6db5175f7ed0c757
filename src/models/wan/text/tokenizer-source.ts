import { readFile, stat } from "node:fs/promises";
import { dirname, join } from "node:path";
import { z } from "zod";
import { DitrunError } from "../../../failure.js";
import { fileFailure } from "../../../files/file-failure.js";
import { readGgufValues } from "../../../formats/gguf.js";
import { readJsonFile } from "../../../formats/json-file.js";
import { openTensors } from "../../../formats/open-tensors.js";
import type { TensorFile } from "../../../formats/tensor-file.js";
import { piecesOf, readSentencePiece, tokenizerDocument } from "./sentencepiece.js";

/** What this code itself relies on; the rest of tokenizer.json is the tokenizers library's. */
const documentSchema = z.looseObject({
  model: z.looseObject({
    type: z.literal("Unigram"),
    unk_id: z.int().nullish(),
    byte_fallback: z.boolean().optional(),
  }),
});
const configSchema = z.looseObject({});

export interface TokenizerDocuments {
  /** For messages. */
  readonly file: string;
  /** tokenizer.json, or what it would be. */
  readonly settings: z.infer<typeof documentSchema>;
  readonly config: z.infer<typeof configSchema>;
}

/** ComfyUI keeps the SentencePiece model among the text encoder's tensors. */
const insideTensor = "spiece_model";
const mostModelBytes = 64 * 2 ** 20;

/**
 * Whether a file of a text encoder has its tokenizer in it.
 */
export function hasTokenizer(file: TensorFile): boolean {
  return file.about.metadata.get("tokenizer.ggml.model") === "t5" || tensorOf(file) !== undefined;
}

function tensorOf(file: TensorFile): string | undefined {
  return file.names().find((name) => name === insideTensor || name.endsWith(`.${insideTensor}`));
}

/** The file of a tokenizer in a folder, or undefined: tokenizer.json, else the SentencePiece model that it was made of. */
export async function tokenizerIn(folder: string): Promise<string | undefined> {
  for (const name of ["tokenizer.json", "spiece.model"]) {
    const path = join(folder, name);
    const there = await stat(path).catch((error: unknown) => {
      // What cannot be looked at is reported when it is opened.
      return error instanceof Error && "code" in error && error.code !== "ENOENT" && error.code !== "ENOTDIR";
    });
    if (there === true || (typeof there === "object" && there.isFile())) return path;
  }
  return undefined;
}

/**
 * Reads a tokenizer: a folder with tokenizer.json or spiece.model, one of these files, or a text encoder that has it inside.
 * @throws DitrunError when there is none, or it is of another kind than umT5's.
 */
export async function readTokenizer(place: string): Promise<TokenizerDocuments> {
  const isFolder = (await stat(place).catch(() => undefined))?.isDirectory() ?? false;
  const path = isFolder ? ((await tokenizerIn(place)) ?? join(place, "tokenizer.json")) : place;
  if (path.endsWith(".json"))
    return {
      file: path,
      settings: await readJson(path, documentSchema),
      config: await readJson(join(dirname(path), "tokenizer_config.json"), configSchema),
    };
  const pieces = /\.model$/.test(path) ? readSentencePiece(path, await readModel(path)) : await insideEncoder(path);
  return {
    file: path,
    settings: documentSchema.parse(tokenizerDocument(pieces)),
    config: { eos_token: "</s>", unk_token: "<unk>" },
  };
}

async function readModel(path: string): Promise<Uint8Array> {
  const failed = (why: string) => new DitrunError("ERR_FILE_READ", `${path} could not be read: ${why}.`);
  const size = (await stat(path).catch(() => undefined))?.size ?? 0;
  if (size > mostModelBytes) throw failed(`it has ${size} bytes, and a tokenizer has at most ${mostModelBytes}`);
  return readFile(path).catch((error: unknown) => {
    throw failed(fileFailure(error));
  });
}

async function insideEncoder(path: string) {
  const file = await openTensors(path);
  try {
    if (file.about.format === "GGUF") return await insideGguf(path);
    const tensor = tensorOf(file);
    if (tensor !== undefined) return readSentencePiece(`${path}: ${tensor}`, await file.read(tensor));
  } finally {
    await file.close();
  }
  throw new DitrunError("ERR_TOKENIZER", `${path} has no tokenizer inside; take the published one of google/umt5-xxl.`);
}

const texts = z.array(z.string());
const numbers = z.array(z.number());

/** Keys are llama.cpp's: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md */
async function insideGguf(path: string) {
  const key = (name: string) => `tokenizer.ggml.${name}`;
  const wanted = ["model", "tokens", "scores", "token_type", "add_space_prefix"].map(key);
  const values = await readGgufValues(path, [...wanted, key("precompiled_charsmap")]);
  const tokens = texts.safeParse(values.get(key("tokens"))).data;
  const scores = numbers.safeParse(values.get(key("scores"))).data;
  const types = numbers.safeParse(values.get(key("token_type"))).data;
  if (
    values.get(key("model")) !== "t5" ||
    !tokens ||
    scores?.length !== tokens.length ||
    types?.length !== tokens.length
  )
    throw new DitrunError(
      "ERR_TOKENIZER",
      `${path} has no unigram tokenizer in its metadata; take the published one of google/umt5-xxl.`,
    );
  return piecesOf(
    path,
    tokens.map((text, id) => ({ text, score: scores[id] ?? 0, type: types[id] ?? 1 })),
    {
      byteFallback: false,
      normaliser: values.has(key("precompiled_charsmap")) ? "nmt_nfkc" : "nfkc",
      dummyPrefix: values.get(key("add_space_prefix")) !== 0,
    },
  );
}

async function readJson<T extends object>(path: string, schema: z.ZodType<T>): Promise<T> {
  const checked = schema.safeParse(await readJsonFile(path));
  if (checked.success) return checked.data;
  const [issue] = checked.error.issues;
  throw new DitrunError(
    "ERR_TOKENIZER",
    `${path} is not a tokenizer that ditrun can read: at ${issue?.path.join(".") || "its top"}, ${issue?.message}.`,
  );
}
