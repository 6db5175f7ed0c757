import { lstat, readdir } from "node:fs/promises";
import { basename, join } from "node:path";
import { z } from "zod";
import { DitrunError } from "../../failure.js";
import { shownPath } from "../../files/shown-path.js";
import { readJsonFile } from "../../formats/json-file.js";
import { shown } from "../../formats/shown.js";

/** What the published checkpoints that ditrun does not run call themselves: model_type, or the class of the pipeline or transformer. */
const tasks: Readonly<Record<string, string>> = {
  i2v: "an image-to-video checkpoint",
  WanImageToVideoPipeline: "an image-to-video checkpoint",
  flf2v: "a first-and-last-frame-to-video checkpoint",
  vace: "a VACE checkpoint (video editing)",
  VaceWanModel: "a VACE checkpoint (video editing)",
  WanVACEPipeline: "a VACE checkpoint (video editing)",
  WanVACETransformer3DModel: "a VACE checkpoint (video editing)",
  WanVideoToVideoPipeline: "a video-to-video checkpoint",
  ti2v: "a Wan 2.2 TI2V-5B checkpoint (text and image to video)",
  s2v: "a Wan 2.2 speech-to-video checkpoint",
  WanSpeechToVideoPipeline: "a Wan 2.2 speech-to-video checkpoint",
  animate: "a Wan 2.2 Animate checkpoint",
  WanAnimatePipeline: "a Wan 2.2 Animate checkpoint",
  WanAnimateTransformer3DModel: "a Wan 2.2 Animate checkpoint",
};
const textToVideo: readonly string[] = ["t2v", "WanModel", "WanPipeline", "WanTransformer3DModel"];

/** Channels of the latent that go in: 16 of Wan 2.1's VAE, and for an image its mask and its own latent; 48 of Wan 2.2's VAE. */
const channels: ReadonlyMap<unknown, string> = new Map([
  [36, "an image-to-video checkpoint"],
  [48, "a Wan 2.2 TI2V-5B checkpoint (text and image to video)"],
]);

const configSchema = z.looseObject({});

/**
 * Refuses a Wan checkpoint of another task or version by its name, which could else load: some differ only in what is beside them.
 * @param directory a folder in either layout. @throws DitrunError saying what it is, and what would run.
 */
export async function refuseOtherTasks(directory: string): Promise<void> {
  const names = new Set(await readdir(directory).catch((): string[] => []));
  const read = async (...parts: string[]): Promise<Record<string, unknown>> => {
    const file = join(directory, ...parts);
    const absent = (await lstat(file).catch(() => undefined)) === undefined;
    return absent ? {} : (configSchema.safeParse(await readJsonFile(file, shownPath(file))).data ?? {});
  };
  const refuse = (what: string, because: string): never => {
    throw new DitrunError(
      "ERR_CHECKPOINT_UNSUPPORTED",
      `${directory} is ${what}: ${because}. ditrun runs text-to-video of Wan 2.1 and 2.2: take Wan-AI/Wan2.1-T2V-1.3B, -14B or Wan-AI/Wan2.2-T2V-A14B.`,
    );
  };

  if (/^(?:high|low)_noise_model$/.test(basename(directory)))
    throw new DitrunError(
      "ERR_CHECKPOINT_UNSUPPORTED",
      `${directory} is by its name one of the two transformers of Wan 2.2 A14B: name the folder that holds both, or its files with --transformer and --transformer-2.`,
    );

  for (const each of ["high_noise_model", "low_noise_model"]) {
    if (!names.has(each)) continue;
    const config = await read(each, "config.json");
    refuseClass(`${each}/config.json`, config.model_type);
    refuseConfig(`${each}/config.json`, config);
  }
  if (names.has("model_index.json")) {
    const index = await read("model_index.json");
    if (!names.has("transformer_2") && (isPart(index.transformer_2) || typeof index.boundary_ratio === "number"))
      throw new DitrunError(
        "ERR_CHECKPOINT_INCOMPLETE",
        `${directory} is a Wan 2.2 A14B checkpoint in the diffusers layout, but transformer_2 is missing; download it again.`,
      );
    if (index.expand_timesteps === true) refuse(tasks.ti2v ?? "", "model_index.json has expand_timesteps");
    refuseClass("model_index.json", index._class_name);
    for (const each of ["transformer", "transformer_2"])
      if (names.has(each)) refuseConfig(`${each}/config.json`, await read(each, "config.json"));
  } else if (names.has("config.json")) {
    const config = await read("config.json");
    refuseClass("config.json", config.model_type);
    refuseConfig("config.json", config);
  }
  if (names.has("Wan2.2_VAE.pth")) refuse("a Wan 2.2 checkpoint", "it has Wan2.2_VAE.pth");

  function refuseClass(file: string, name: unknown): void {
    if (typeof name !== "string" || textToVideo.includes(name)) return;
    const task = Object.hasOwn(tasks, name) ? tasks[name] : undefined;
    refuse(task ?? "no text-to-video checkpoint", `${file} says ${shown(name)}`);
  }

  function refuseConfig(file: string, config: Readonly<Record<string, unknown>>): void {
    refuseClass(file, config._class_name);
    for (const key of ["in_dim", "in_channels"]) {
      const task = channels.get(config[key]);
      if (task !== undefined) refuse(task, `${file} has ${key} ${config[key]}`);
    }
    if (typeof config.pos_embed_seq_len === "number") refuse(tasks.flf2v ?? "", `${file} has pos_embed_seq_len`);
    for (const key of ["image_dim", "added_kv_proj_dim"])
      if (typeof config[key] === "number") refuse(tasks.i2v ?? "", `${file} has ${key}`);
  }
}

/** Parts of a pipeline are [library, class]; one that is left out is [null, null]. */
function isPart(value: unknown): boolean {
  return Array.isArray(value) && value.some((name) => name !== null);
}
