// PyTorch's files as torch.save writes them, by hand: pickles in the text protocol, and zip archives of what is stored as it is.

/** A zip archive of entries stored as they are, without checksums. */
export function zip(entries: Record<string, Uint8Array>): Buffer {
  const parts: Buffer[] = [];
  const directory: Buffer[] = [];
  let offset = 0;
  for (const [name, data] of Object.entries(entries)) {
    const local = Buffer.alloc(30);
    local.writeUInt32LE(0x04034b50, 0);
    local.writeUInt32LE(data.byteLength, 18);
    local.writeUInt32LE(data.byteLength, 22);
    local.writeUInt16LE(name.length, 26);
    const central = Buffer.alloc(46);
    central.writeUInt32LE(0x02014b50, 0);
    central.writeUInt32LE(data.byteLength, 20);
    central.writeUInt32LE(data.byteLength, 24);
    central.writeUInt16LE(name.length, 28);
    central.writeUInt32LE(offset, 42);
    parts.push(local, Buffer.from(name), Buffer.from(data));
    directory.push(central, Buffer.from(name));
    offset += 30 + name.length + data.byteLength;
  }
  const end = Buffer.alloc(22);
  const count = Object.keys(entries).length;
  end.writeUInt32LE(0x06054b50, 0);
  end.writeUInt16LE(count, 8);
  end.writeUInt16LE(count, 10);
  end.writeUInt32LE(Buffer.concat(directory).byteLength, 12);
  end.writeUInt32LE(offset, 16);
  return Buffer.concat([...parts, ...directory, end]);
}

const ints = (values: readonly number[]) => `(${values.map((n) => `I${n}\n`).join("")}t`;

interface TensorPickle {
  readonly first?: number;
  readonly elements?: number;
  readonly storage?: string;
  readonly key?: string;
  /** Of an untyped storage: the dtype's own name, as float8_e4m3fn. */
  readonly dtype?: string;
  /** Before 1.6 a storage's id had a sixth part, for views. */
  readonly legacy?: boolean;
}

/** Pickle of one tensor. */
export function tensor(shape: readonly number[], stride: readonly number[], more: TensorPickle = {}): string {
  const { first = 0, elements = 6, storage = "FloatStorage", key = "0", dtype, legacy = false } = more;
  const [version, kind] = dtype === undefined ? [2, `torch\n${storage}`] : [3, "torch.storage\nUntypedStorage"];
  const id = `(S'storage'\nc${kind}\nS'${key}'\nS'cpu'\nI${elements}\n${legacy ? "N" : ""}tQ`;
  const last = dtype === undefined ? "" : `ctorch\n${dtype}\n`;
  return `ctorch._utils\n_rebuild_tensor_v${version}\n(${id}I${first}\n${ints(shape)}${ints(stride)}I00\nccollections\nOrderedDict\n(tR${last}tR`;
}

export const dictionary = (items: Readonly<Record<string, string>>) =>
  `(d${Object.entries(items)
    .map(([key, value]) => `S'${key}'\n${value}s`)
    .join("")}`;

export interface TorchTensor {
  readonly dtype: string;
  readonly shape: readonly number[];
  readonly data: Uint8Array;
}

const storages: Readonly<Record<string, readonly [name: string, bytes: number]>> = {
  F64: ["DoubleStorage", 8],
  F32: ["FloatStorage", 4],
  F16: ["HalfStorage", 2],
  BF16: ["BFloat16Storage", 2],
  I8: ["CharStorage", 1],
};
const untyped: Readonly<Record<string, string>> = { F8_E4M3: "float8_e4m3fn", F8_E5M2: "float8_e5m2" };

const stridesOf = (shape: readonly number[]) =>
  shape.map((_, i) => shape.slice(i + 1).reduce((product, size) => product * size, 1));

function pickled({ dtype, shape, data }: TorchTensor, key: string, legacy = false): string {
  const named = untyped[dtype];
  const [storage, bytes] = storages[dtype] ?? ["ByteStorage", 1];
  const kind = named === undefined ? { storage } : { dtype: named };
  return tensor(shape, stridesOf(shape), { key, elements: data.byteLength / bytes, legacy, ...kind });
}

/** A state dict as a zip archive; `wrap` puts the dictionary of tensors into others. */
export function torchZip(
  tensors: Readonly<Record<string, TorchTensor>>,
  wrap: (dictionary: string) => string = (all) => all,
): Buffer {
  const all = Object.entries(tensors);
  const items = Object.fromEntries(all.map(([name, each], i) => [name, pickled(each, `${i}`)]));
  const data = Object.fromEntries(all.map(([, each], i) => [`m/data/${i}`, each.data]));
  return zip({ "m/data.pkl": Buffer.from(`${wrap(dictionary(items))}.`, "latin1"), ...data });
}

/** The same as before PyTorch 1.6: five pickles, and the storages' bytes behind their counts. */
export function torchLegacy(tensors: Readonly<Record<string, TorchTensor>>, littleEndian = true): Buffer {
  const all = Object.entries(tensors);
  const items = Object.fromEntries(all.map(([name, each], i) => [name, pickled(each, `9${i}`, true)]));
  const system = `(dS'protocol_version'\nI1001\nsS'little_endian'\nI0${littleEndian ? 1 : 0}\ns.`;
  const keys = `(l${all.map((_, i) => `S'9${i}'\na`).join("")}.`;
  const behind = all.map(([, { dtype, data }]) => {
    const count = Buffer.alloc(8);
    count.writeBigInt64LE(BigInt(data.byteLength / (storages[dtype]?.[1] ?? 1)));
    return Buffer.concat([count, data]);
  });
  const magic = Buffer.from("80028a0a6cfc9c46f9206aa850192e", "hex");
  const pickles = Buffer.from(`I1001\n.${system}${dictionary(items)}.${keys}`, "latin1");
  return Buffer.concat([magic, pickles, ...behind]);
}
