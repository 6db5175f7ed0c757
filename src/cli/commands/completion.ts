import { exitCodes } from "../../failure.js";
import type { Body, Command } from "../command.js";
import { bashScript } from "../completion/bash.js";
import { fishScript } from "../completion/fish.js";
import { vocabularyOf } from "../completion/vocabulary.js";
import { zshScript } from "../completion/zsh.js";

const scripts = { bash: bashScript, zsh: zshScript, fish: fishScript };

/** `ditrun completion SHELL`: prints a script that the shell reads. */
export function completion(shell: keyof typeof scripts, commands: readonly Command[]): Body<object> {
  return {
    run: async () => {
      process.stdout.write(scripts[shell](vocabularyOf(commands)));
      return exitCodes.ok;
    },
  };
}
