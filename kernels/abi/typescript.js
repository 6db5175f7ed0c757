// The TypeScript twin of the header: koffi's declarations, and types for whatever crosses them.
import { camel, isOutput, pascal, queues, typeText } from "./header.js";

/** How the worker calls an enum and its members, where that is not the header's word in camel case. */
const enumNames = {
  dtype: { name: "deviceDtypes", F32: "fp32", F16: "fp16" },
  activation: { name: "activations" },
  memory: { name: "memoryKinds", DEVICE_MEMORY: "device", PEER_MEMORY: "peer" },
  random: { name: "distributions" },
  // By the names that files give their dtypes.
  stored: { name: "storedKinds", keep: /^STORED_(.*)$/ },
  kernel: {
    name: "attentionKernels",
    KERNEL_AUTO: "auto",
    KERNEL_GENERIC: "generic",
    KERNEL_SM80: "sm80",
    KERNEL_SM90: "sm90",
  },
  status: { name: "statuses" },
};

/** Fields of 64 bits that are no addresses and may be beyond 2^53. */
const bigFields = new Set(["seed"]);

/** @param {import("./header.js").Abi} abi @returns {string} src/worker/runtime/abi.generated.ts */
export function typescript({ limits, enums, structs, functions }) {
  const launched = functions.filter(queues);
  const others = functions.filter((each) => !queues(each));
  return `// Written by kernels/abi/generate.js from kernels/include/ditrun.h, which says what all of this means. Change the header, not this.

/** A device address, stream, event, graph or communicator as the C ABI hands them out (always below 2^53); 0 is none. */
export type Handle = number;
export type Address = Handle;
/** Where a function writes one number. */
export type Output = [null];

${[...limits].map(([name, value]) => `export const ${name} = ${value};`).join("\n")}

${enums.map(enumObject).join("\n")}

${structs.map(structInterface).join("\n\n")}

/** Of each struct its fields in order, with their C types. */
export const structs = {
${structs.map(structFields).join("\n")}
} as const;

/** C prototypes; _Out_ is koffi's word for what a function writes to. */
export const prototypes = {
${functions.map(prototype).join("\n")}
} as const;

export type KernelName = keyof typeof prototypes;

/** What functions take whose last parameter is a stream, without that. */
export interface OnStream {
${launched.map((each) => `  ${camel(each.name)}: ${tuple(each.parameters.slice(0, -1))};`).join("\n")}
}

/** What all others take. */
interface Plain {
${others.map((each) => `  ${camel(each.name)}: ${tuple(each.parameters)};`).join("\n")}
}

/** What every function takes. */
export type Calls = Plain & { [Name in keyof OnStream]: [...OnStream[Name], stream: Handle] };
`;
}

function enumObject({ name, members }) {
  const { name: object = `${camel(name)}s`, keep, ...words } = enumNames[name] ?? {};
  const word = (member) => keep?.exec(member)?.[1] ?? words[member] ?? camel(member);
  const entries = members.map((member) => `${word(member.name)}: ${member.value}`);
  return `export const ${object} = { ${entries.join(", ")} } as const;`;
}

function structInterface({ name, fields }) {
  const lines = fields.map(
    (field) => `  readonly ${field.name}: ${bigFields.has(field.name) ? "bigint" : typeOf(field)};`,
  );
  return `export interface ${pascal(name)} {\n${lines.join("\n")}\n}`;
}

/** Koffi copies what a pointer in a struct points to: its constness says nothing there. */
function structFields({ name, fields }) {
  const lines = fields.map((field) => `    ${field.name}: "${typeText({ ...field, constant: false }).trim()}",`);
  return `  ditrun_${name}: {\n${lines.join("\n")}\n  },`;
}

function prototype({ name, result, parameters }) {
  const list = parameters.map((parameter) => {
    if (!isOutput(parameter)) return `${typeText(parameter)}${parameter.name}`;
    const { type } = parameter;
    return `_Out_ ${type === "void" || type === "char" ? "uint8_t" : type} *${parameter.name}`;
  });
  const text = `"${result}${result.endsWith("*") ? "" : " "}ditrun_${name}(${list.join(", ") || "void"})",`;
  const line = `  ${camel(name)}: ${text}`;
  return line.length <= 120 ? line : `  ${camel(name)}:\n    ${text}`;
}

function tuple(parameters) {
  // A parameter that points to a struct points to one; a field, to a list.
  const type = (parameter) =>
    parameter.type.startsWith("ditrun_")
      ? pascal(parameter.type.slice(7))
      : typeOf(parameter).replace("Address", "number");
  return `[${parameters.map((parameter) => `${parameter.name}: ${type(parameter)}`).join(", ")}]`;
}

function typeOf(variable) {
  const { type, pointer } = variable;
  if (!pointer) return type === "uint64_t" ? "Address" : "number";
  if (["void", "char", "uint8_t"].includes(type)) return "Uint8Array";
  if (isOutput(variable)) return "Output";
  return `readonly ${type === "uint64_t" ? "Address" : type.startsWith("ditrun_") ? pascal(type.slice(7)) : "number"}[]`;
}
