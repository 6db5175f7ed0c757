// The Python twin of the header, for ctypes: constants, structs, and what every function takes.
import { isOutput, pascal } from "./header.js";

const plain = {
  ...{ uint64_t: "c_uint64", int64_t: "c_int64", int32_t: "c_int32", uint32_t: "c_uint32" },
  ...{ int: "c_int", float: "c_float" },
};

/** Functions that return no status: what describes the module. */
const describing = new Set(["abi_version", "module", "last_error"]);

/** @param {import("./header.js").Abi} abi @returns {string} test/gpu/ditrun_abi_generated.py */
export function python({ limits, enums, structs, functions }) {
  const members = enums.filter(({ name }) => name !== "status").flatMap((each) => each.members.map(shortMember));
  const calls = functions.filter(({ name }) => !describing.has(name));
  return `"""Written by kernels/abi/generate.js from kernels/include/ditrun.h, which says what all of this means."""
from ctypes import (POINTER, Structure, c_char_p, c_float, c_int, c_int32, c_int64, c_uint32, c_uint64,
                    c_void_p)

${[...limits].map(([name, value]) => `${name} = ${value}`).join("\n")}

${members.map(({ name, value }) => `${name} = ${value}`).join("\n")}


${structs.map(structClass).join("\n\n\n")}


# What every function takes that returns a status.
SIGNATURES = {
${calls.map(({ name, parameters }) => `    "${name}": [${wrap(parameters.map(typeOf))}],`).join("\n")}
}
# Functions whose only output is one 64-bit value, their last parameter.
RETURNS = {${wrap(calls.filter(returns).map(({ name }) => `"${name}"`))}}
`;
}

/** DEVICE_MEMORY is DEVICE, KERNEL_SM90 is SM90. */
function shortMember({ name, value }) {
  return { name: name.replace(/^KERNEL_|_MEMORY$/g, ""), value };
}

function structClass({ name, fields }) {
  const lines = fields.map((field) => `        ("${field.name}", ${typeOf(field)}),`);
  return `class ${className(name)}(Structure):\n    _fields_ = [\n${lines.join("\n")}\n    ]`;
}

function className(name) {
  return pascal(name.replace(/_args$/, ""));
}

function returns({ parameters }) {
  const outputs = parameters.filter(isOutput);
  return outputs.length === 1 && outputs[0] === parameters.at(-1) && outputs[0].type === "uint64_t";
}

function typeOf({ type, pointer }) {
  if (!pointer) return plain[type];
  if (type === "void") return "c_void_p";
  if (type === "char" || type === "uint8_t") return "c_char_p";
  return `POINTER(${plain[type] ?? className(type.slice("ditrun_".length))})`;
}

/** A list over as many lines of 120 columns as it takes. */
function wrap(items) {
  const lines = [""];
  for (const item of items) {
    const last = lines.at(-1);
    if (last.length + item.length > 85) lines.push(`${item}, `);
    else lines[lines.length - 1] = `${last}${item}, `;
  }
  return lines
    .map((line) => line.trimEnd())
    .join("\n        ")
    .replace(/,$/, "");
}
