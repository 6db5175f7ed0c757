import type { Command } from "../command.js";
import { accuracy } from "./accuracy.js";
import { links } from "./links.js";
import { profile } from "./profile.js";
import { wan } from "./wan.js";

/** Every command, in the order of --help. */
export const commands: readonly Command[] = [profile, accuracy, wan, links];
