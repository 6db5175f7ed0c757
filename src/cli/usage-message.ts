/**
 * A sentence for a command line that is not understood.
 * @param message what yargs says of it, or a sentence of our own.
 * @param argv the line's words.
 * @param commands what a line may name.
 */
export function usageMessage(message: string, argv: readonly string[], commands: readonly string[]): string {
  const line = message.replace(/\s*\n\s*/g, " ").trim();
  const sentence = reworded(line, argv, commands);
  return `${/[.!?]$/.test(sentence) ? sentence : `${sentence}.`} See ditrun --help.`;
}

function reworded(line: string, argv: readonly string[], commands: readonly string[]): string {
  const [, unknown] = /^Unknown arguments?: (.*)$/.exec(line) ?? [];
  if (unknown !== undefined) return unknownWord(unknown.split(", "), argv, commands);
  const [, name, given, choices] =
    /^Invalid values: Argument: (.+?), Given: (.*?), Choices: (.*?)(?: Argument: .*)?$/.exec(line) ?? [];
  if (choices !== undefined) return `--${name} is ${given}; it must be one of ${choices.replaceAll('"', "")}`;
  const [, bare] = /^Not enough arguments following: (.*)$/.exec(line) ?? [];
  if (bare !== undefined) return `--${bare} needs a value; one that begins with a dash is written --${bare}=VALUE`;
  const [, missing] = /^Missing required arguments?: (.*)$/.exec(line) ?? [];
  if (missing !== undefined) return `${missing.replace(/[\w-]+/g, "--$&")} must be given`;
  return line;
}

/** The first such word as it was typed: yargs leaves out the dashes, and lists `--a-b` as `aB` too. */
function unknownWord(names: readonly string[], argv: readonly string[], commands: readonly string[]): string {
  const typed = argv.find((word) => names.includes(word.replace(/^--?(no-)?/, "").replace(/=.*$/s, "")));
  const word = typed ?? names[0] ?? "";
  if (word.startsWith("-")) return `There is no option ${word.replace(/=.*$/s, "")}`;
  const before = argv[argv.indexOf(word) - 1];
  if (before !== undefined) return `"${word.replaceAll('"', "")}" is not understood after ${before}`;
  return `There is no command "${word.replaceAll('"', "")}": name ${alternatives(commands)}`;
}

/** `a, b or c`. */
export function alternatives(names: readonly string[]): string {
  return `${names.slice(0, -1).join(", ")} or ${names.at(-1)}`;
}
