import type { Values } from "../option.js";
import { launchOptions } from "./launch.js";
import { modelOptions } from "./model.js";
import { outputOptions } from "./output.js";

/** What every command that runs a model on workers takes besides its own options. */
export const modelRunOptions = { ...modelOptions, ...launchOptions, ...outputOptions };

export type ModelRun = Values<typeof modelRunOptions>;
