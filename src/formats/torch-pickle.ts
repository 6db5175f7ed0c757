import { BufferReader, Parser } from "pickleparser";
import { z } from "zod";
import { DitrunError, messageOf } from "../failure.js";
import { bytesOf, type PlainDtype } from "./dtypes.js";
import { checkTensorName, shown } from "./shown.js";

/** A tensor as the pickle describes it; its bytes stand in the storage of this key. */
export interface CheckpointTensor {
  readonly dtype: PlainDtype;
  readonly shape: readonly number[];
  readonly storage: string;
  /** The tensor's first element, counted in elements from the storage's beginning. */
  readonly firstElement: number;
}

const storageDtypes = {
  DoubleStorage: "F64",
  FloatStorage: "F32",
  HalfStorage: "F16",
  BFloat16Storage: "BF16",
  LongStorage: "I64",
  IntStorage: "I32",
  ShortStorage: "I16",
  CharStorage: "I8",
  ByteStorage: "U8",
  BoolStorage: "BOOL",
} as const satisfies Record<string, PlainDtype>;

/** Dtypes without a storage class: a pickle names them where it makes a tensor of an untyped storage. */
const namedDtypes = {
  float64: "F64",
  float32: "F32",
  float16: "F16",
  bfloat16: "BF16",
  float8_e4m3fn: "F8_E4M3",
  float8_e5m2: "F8_E5M2",
  int64: "I64",
  int32: "I32",
  int16: "I16",
  int8: "I8",
  uint8: "U8",
  bool: "BOOL",
} as const satisfies Record<string, PlainDtype>;

// Frozen, since a pickle may set attributes of whatever it has made (BUILD), and these have been checked.
class StorageReference {
  constructor(
    /** Of an untyped one its bytes. */
    readonly dtype: PlainDtype,
    readonly key: string,
    readonly elements: number,
  ) {
    Object.freeze(this);
  }
}

class TensorReference {
  constructor(
    readonly storage: StorageReference,
    readonly dtype: PlainDtype,
    readonly firstElement: number,
    readonly shape: readonly number[],
    readonly stride: readonly number[],
  ) {
    Object.freeze(shape);
    Object.freeze(stride);
    Object.freeze(this);
  }
}

const size = z.int().min(0);
/** PyTorch's own limit on dimensions. */
const sizes = z.array(size).max(64);
const rebuildArguments = z.tuple([z.instanceof(StorageReference), size, sizes, sizes]).rest(z.unknown());
/** Behind the shape and the strides: requires_grad, backward_hooks, dtype. */
const DTYPE_ARGUMENT = 6;
const pairs = z.array(z.tuple([z.unknown(), z.unknown()]));

/** What a pickle may name. All of it is here: each function only makes plain values from its arguments. */
type Allowed = (...args: unknown[]) => unknown;

const storageClasses = new Map<unknown, PlainDtype>();
const dtypes = new Map<unknown, PlainDtype>();

/** Source: torch/_utils.py. */
function rebuild(dtypeOf: (storage: StorageReference, args: readonly unknown[]) => PlainDtype): Allowed {
  return (...args) => {
    const [storage, firstElement, shape, stride] = rebuildArguments.parse(args);
    return new TensorReference(storage, dtypeOf(storage, args), firstElement, [...shape], [...stride]);
  };
}

function namedDtype(value: unknown): PlainDtype {
  const dtype = dtypes.get(value);
  if (dtype === undefined) throw new Error("a tensor has no known dtype");
  return dtype;
}

const allowed = new Map<string, Allowed>([
  ["collections.OrderedDict", (items = []) => new Map(pairs.parse(items))],
  ["torch._utils._rebuild_tensor_v2", rebuild(({ dtype }) => dtype)],
  ["torch._utils._rebuild_tensor_v3", rebuild((_, args) => namedDtype(args[DTYPE_ARGUMENT]))],
  ["torch._utils._rebuild_parameter", (tensor) => z.instanceof(TensorReference).parse(tensor)],
]);
/** A class or value that may be named, but not called. */
function onlyNamed(name: string): Allowed {
  const mark: Allowed = () => {
    throw new Error(`it calls ${name}, which may only be named`);
  };
  allowed.set(name, mark);
  return mark;
}
for (const [name, dtype] of Object.entries(storageDtypes)) storageClasses.set(onlyNamed(`torch.${name}`), dtype);
storageClasses.set(onlyNamed("torch.storage.UntypedStorage"), "U8");
for (const [name, dtype] of Object.entries(namedDtypes)) dtypes.set(onlyNamed(`torch.${name}`), dtype);
for (const each of allowed.values()) Object.freeze(each);

/** Thrown through the parser, so that a refusal is not taken for damage. */
class Refused extends Error {}

function resolveName(module: string, name: string): Allowed {
  const found = allowed.get(`${module}.${name}`);
  if (found === undefined) throw new Refused(shown(`${module}.${name}`));
  return found;
}

/** PyTorch's persistent ids: ("storage", storage class, key, device, number of elements), and before 1.6 views, which are gone since 0.4. */
const persistentId = z
  .tuple([z.literal("storage"), z.unknown(), z.string().regex(/^\w{1,100}$/), z.string(), size])
  .rest(z.null());

function resolveStorage(id: unknown): StorageReference {
  const [, storageClass, key, , elements] = persistentId.parse(id);
  const dtype = storageClasses.get(storageClass);
  if (dtype === undefined) throw new Error(`storage ${key} has no known class`);
  return new StorageReference(dtype, key, elements);
}

/**
 * The tensors of a checkpoint's data.pkl by dotted name. Throws DitrunError if the pickle is damaged, names anything but
 * tensors and containers, or has a tensor that is not contiguous in its storage.
 */
export function readStateDict(path: string, pickle: Uint8Array): Map<string, CheckpointTensor> {
  return tensorsOf(path, parsePickle(path, new BoundedReader(pickle)));
}

/** What torch.save wrote before 1.6 in front of the storages' bytes. */
export interface LegacyStart {
  readonly tensors: Map<string, CheckpointTensor>;
  /** Keys and dtypes of the storages, in the order of their bytes. */
  readonly storages: readonly { readonly key: string; readonly elementBytes: number }[];
  /** Where the first storage begins. */
  readonly end: number;
}

/** A pickle of a number of ten bytes. */
const legacyMagicBytes = 15;
const legacySystem = z.map(z.string(), z.unknown());
const legacyKeys = z.array(z.string());

/**
 * The pickles of a file from before PyTorch 1.6: magic number, version, system, state dict, and the keys of the storages behind them.
 * Source: _legacy_save in torch/serialization.py. Throws DitrunError as readStateDict.
 */
export function readLegacyStart(path: string, start: Uint8Array): LegacyStart {
  const reader = new BoundedReader(start);
  // The magic number, which has been looked at: it is longer than the parser's numbers.
  reader.skip(legacyMagicBytes);
  const stored = new Map<string, StorageReference>();
  // The version, which never changed.
  parsePickle(path, reader);
  const system = legacySystem.safeParse(parsePickle(path, reader)).data;
  if (system?.get("little_endian") !== true)
    throw new DitrunError(
      "ERR_TORCH_CHECKPOINT",
      `${path} was saved on a big-endian machine; save it again on a little-endian one.`,
    );
  const tensors = tensorsOf(
    path,
    parsePickle(path, reader, (storage) => stored.set(storage.key, storage)),
  );
  const keys = legacyKeys.safeParse(parsePickle(path, reader)).data ?? [];
  const storages = keys.map((key) => {
    const storage = stored.get(key);
    if (storage === undefined)
      throw new DitrunError("ERR_PICKLE", `${path}: no tensor uses its storage ${shown(key)}.`);
    return { key, elementBytes: bytesOf(storage.dtype, 1) };
  });
  return { tensors, storages, end: reader.position };
}

function tensorsOf(path: string, root: unknown): Map<string, CheckpointTensor> {
  if (!(root instanceof Map)) throw new DitrunError("ERR_PICKLE", `${path} holds no dictionary of tensors at its top.`);
  const tensors = new Map<string, CheckpointTensor>();
  for (const [name, value] of leaves(path, root)) {
    if (!(value instanceof TensorReference)) continue;
    checkTensorName(path, name);
    tensors.set(name, contiguous(path, name, value));
  }
  return tensors;
}

/** Far above any name, key or number of a state dict. The parser's time for a long integer grows with the square of its length. */
const maxPieceBytes = 16 * 1024;
/** The parser keeps every object that it is told to, and some take one byte to make. A state dict has some 30 for each tensor. */
const maxOperations = 500_000;

/** Reads a pickle piece by piece, none of them larger than a state dict has. */
class BoundedReader extends BufferReader {
  #operations = 0;

  override hasNext(): boolean {
    // Asked once before each operation.
    if (++this.#operations > maxOperations) throw new Error(`it has more than ${maxOperations} operations`);
    return super.hasNext();
  }

  override bytes(length: number): Uint8Array {
    if (!(length >= 0 && length <= maxPieceBytes))
      throw new Error(`it has a piece of ${length} bytes, and at most ${maxPieceBytes} are read`);
    return Uint8Array.from(super.bytes(length));
  }
}

/** The next pickle of the reader. @param onStorage called for each storage that it names. */
function parsePickle(path: string, reader: BoundedReader, onStorage?: (storage: StorageReference) => void): unknown {
  const resolve = (id: unknown) => {
    const storage = resolveStorage(id);
    onStorage?.(storage);
    return storage;
  };
  try {
    return new Parser({
      nameResolver: { resolve: resolveName },
      persistentResolver: { resolve },
      unpicklingTypeOfDictionary: "Map",
      unpicklingTypeOfSet: "Set",
    }).read<unknown>(reader);
  } catch (error) {
    if (error instanceof Refused && /^(?:torchao|bitsandbytes|optimum)\./.test(error.message))
      throw new DitrunError(
        "ERR_CHECKPOINT_UNSUPPORTED",
        `${path} holds tensors of ${error.message.split(".")[0]}, which ditrun does not read: take the model in bf16, fp8 or GGUF.`,
      );
    if (error instanceof Refused)
      throw new DitrunError(
        "ERR_PICKLE",
        `${path} asks for ${error.message}, and ditrun loads only tensors and containers from a pickle; convert the file to safetensors if you trust it.`,
      );
    const why = error instanceof z.ZodError ? (error.issues[0]?.message ?? "bad arguments") : messageOf(error);
    throw new DitrunError("ERR_PICKLE", `${path}: its data.pkl cannot be read: ${shown(why.replace(/\.$/, ""))}.`);
  }
}

/** Bounds for a pickle whose containers hold themselves or each other many times over. */
const maxDepth = 16;
const maxItems = 1_000_000;

function* leaves(path: string, root: Map<unknown, unknown>): Generator<[name: string, value: unknown]> {
  const pending: [keys: readonly unknown[], value: unknown][] = [[[], root]];
  let items = 0;
  for (let next = pending.pop(); next !== undefined; next = pending.pop()) {
    const [keys, value] = next;
    if (++items > maxItems || keys.length > maxDepth)
      throw new DitrunError(
        "ERR_PICKLE",
        `${path} has more than ${maxItems} items or nests them more than ${maxDepth} deep; is it a state dict?`,
      );
    if (!(value instanceof Map || Array.isArray(value))) yield [keys.join("."), value];
    // Last first, so that the stack gives the tensors in the file's order.
    else for (const [key, item] of [...value.entries()].reverse()) pending.push([[...keys, key], item]);
  }
}

function contiguous(path: string, name: string, tensor: TensorReference): CheckpointTensor {
  const { storage, dtype, firstElement, shape, stride } = tensor;
  let expected = 1;
  const rowMajor = shape.toReversed().map((n) => {
    const own = expected;
    expected *= n;
    return own;
  });
  // A stride is never used along a dimension of size 1, and not at all in an empty tensor.
  const same = shape.every((n, i) => n === 1 || stride[i] === rowMajor[shape.length - 1 - i]);
  if (stride.length !== shape.length || !(same || expected === 0))
    throw new DitrunError(
      "ERR_PICKLE",
      `${path}: tensor ${name} of shape [${shape.join(", ")}] has the strides [${stride.join(", ")}]; save it with .contiguous().`,
    );
  const elements = storage.elements * (bytesOf(storage.dtype, 1) / bytesOf(dtype, 1));
  if (firstElement + expected > elements)
    throw new DitrunError(
      "ERR_PICKLE",
      `${path}: tensor ${name} needs elements ${firstElement} to ${firstElement + expected} of storage ${storage.key}, which has ${elements}.`,
    );
  return { dtype, shape, storage: storage.key, firstElement };
}
