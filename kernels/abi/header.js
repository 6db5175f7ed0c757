// Reads kernels/include/ditrun.h: just the C that it is written in, and no more. Whatever is not understood is an error.

/** @typedef {{ name: string, type: string, pointer: boolean, constant: boolean }} Variable a field or a parameter; type without const and * */
/** @typedef {{ name: string, result: string, parameters: Variable[] }} Function */
/** @typedef {{ name: string, fields: Variable[] }} Struct */
/** @typedef {{ name: string, members: { name: string, value: number }[] }} Enum */
/** @typedef {{ limits: Map<string, number>, enums: Enum[], structs: Struct[], functions: Function[] }} Abi all names without their ditrun_ or DITRUN_ */

const types = new Set(["uint64_t", "int64_t", "int32_t", "uint32_t", "uint8_t", "int", "float", "char", "void"]);

/**
 * @param {string} text of the header
 * @returns {Abi}
 * @throws Error naming the first declaration that is in no form known here.
 */
export function readHeader(text) {
  const code = text.replace(/\/\*[\s\S]*?\*\//g, "");
  const limits = new Map([...code.matchAll(/^#define DITRUN_(\w+) (\d+)$/gm)].map(([, name, value]) => [name, +value]));
  /** @type {Abi} */
  const abi = { limits, enums: [], structs: [], functions: [] };
  for (const declaration of declarations(code)) readDeclaration(declaration, abi);
  return abi;
}

/** The header's declarations, each as one line without its semicolon. */
function declarations(code) {
  const plain = code
    .replace(/^#.*$/gm, "")
    .replace(/extern "C" \{([\s\S]*)\}/, "$1")
    .replace(/\s+/g, " ");
  // A semicolon ends a declaration where no brace is open.
  return plain.split(/;(?![^{]*\})/).flatMap((piece) => piece.trim() || []);
}

function readDeclaration(declaration, { enums, structs, functions }) {
  const [, enumName, members] = /^enum ditrun_(\w+) \{(.*)\}$/.exec(declaration) ?? [];
  if (enumName) return enums.push({ name: enumName, members: members.split(",").map(readMember) });
  const [, fields, structName] = /^typedef struct \{(.*)\} ditrun_(\w+)$/.exec(declaration) ?? [];
  if (structName) return structs.push({ name: structName, fields: readFields(fields, structs) });
  const [, result, name, list] = /^DITRUN_API (int|const char \*)\s*ditrun_(\w+)\((.*)\)$/.exec(declaration) ?? [];
  if (!name) throw new Error(`The header has a declaration in no form that the generator knows: ${declaration}`);
  const parameters = list === "void" ? [] : list.split(",").map((parameter) => readVariable(parameter, structs));
  functions.push({ name, result, parameters });
}

function readMember(member) {
  const [, name, value] = /^\s*DITRUN_(\w+) = (\d+)\s*$/.exec(member) ?? [];
  if (!name) throw new Error(`An enum of the header has a member without a name or a value: ${member}`);
  return { name, value: Number(value) };
}

/** `uint64_t a, b; const float *c;` -> a, b, c */
function readFields(body, structs) {
  return body.split(";").flatMap((line) => {
    if (line.trim() === "") return [];
    const [first, ...more] = line.split(",");
    const variable = readVariable(first, structs);
    return [variable, ...more.map((name) => readVariable(`${typeText(variable)}${name}`, structs))];
  });
}

function readVariable(text, structs) {
  const [, constant, type, star, name] = /^\s*(const )?(\w+) (\*?)\s*(\w+)\s*$/.exec(text) ?? [];
  if (!name || !(types.has(type) || structs.some((struct) => `ditrun_${struct.name}` === type))) {
    throw new Error(`The header has a field or parameter in no form that the generator knows: ${text.trim()}`);
  }
  return { name, type, pointer: star === "*", constant: constant !== undefined };
}

/** A variable's type as C has it, up to its name. */
export function typeText({ type, pointer, constant }) {
  return `${constant ? "const " : ""}${type} ${pointer ? "*" : ""}`;
}

/** Whether a function writes through this parameter. */
export function isOutput({ pointer, constant }) {
  return pointer && !constant;
}

/** Whether a function queues work on a stream, its last parameter. */
export function queues({ parameters }) {
  return parameters.at(-1)?.name === "stream" && !parameters.at(-1)?.pointer;
}

/** gemm_args -> GemmArgs */
export function pascal(name) {
  return name.replace(/(?:^|_)([a-z0-9])/g, (_, letter) => letter.toUpperCase());
}

/** flags_write -> flagsWrite */
export function camel(name) {
  return name.toLowerCase().replace(/_([a-z0-9])/g, (_, letter) => letter.toUpperCase());
}
