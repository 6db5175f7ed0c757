import { expect, test } from "vitest";
import { usageMessage } from "../../../src/cli/usage-message.js";

const commands = ["profile", "wan"];

test.each([
  ["Unknown arguments: guide-scale, guideScale", "wan --guide-scale=2", "There is no option --guide-scale."],
  ["Unknown argument: baseline", "links --no-baseline", "There is no option --no-baseline."],
  ["Unknown argument: x", "profile -x", "There is no option -x."],
  ['Unknown argument: ""', "", 'There is no command "": name profile or wan.'],
  [
    'Invalid values:\n  Argument: a, Given: "x", Choices: "b", "c"\n  Argument: d, Given: 1, Choices: "e"',
    "",
    '--a is "x"; it must be one of b, c.',
  ],
  ["Missing required arguments: prompt, out", "", "--prompt, --out must be given."],
  ["Anything else\n at all", "", "Anything else at all."],
])("%j of %j", (message, line, sentence) => {
  expect(usageMessage(message, line.split(" "), commands)).toBe(`${sentence} See ditrun --help.`);
});
