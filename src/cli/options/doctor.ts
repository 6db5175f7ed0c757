import { checkNames, sections } from "../../doctor/names.js";
import { DitrunError } from "../../failure.js";
import { nearest } from "../../nearest.js";
import { flag, type Option, type Values } from "../option.js";
import { outputOptions } from "./output.js";

const sectionNames = Object.keys(sections);
const names: readonly string[] = [...sectionNames, ...checkNames];

const only: Option<readonly string[]> = {
  value: "NAME",
  completes: "check",
  repeats: true,
  describe: "Look at this section or check alone; given again, at another as well",
  otherwise: [],
  read(texts, name) {
    for (const text of texts) {
      if (names.includes(text)) continue;
      const meant = nearest(text, names);
      const hint = meant === undefined ? "docs/doctor.md lists the checks" : `did you mean ${meant}`;
      throw new DitrunError(
        "ERR_OPTION_VALUE",
        `${name} is "${text}"; it must be a section (${sectionNames.join(", ")}) or a check: ${hint}.`,
      );
    }
    return texts;
  },
};

/** Of `ditrun doctor`. */
export const doctorOptions = {
  only,
  bench: flag("Also measure how fast each device multiplies and copies, and what links carry"),
  json: outputOptions.json,
} satisfies Record<string, Option<unknown>>;

export type DoctorOptions = Values<typeof doctorOptions>;
