import { type Option, path, type Values } from "../option.js";

export const keyOptions = {
  out: path("FILE", "file", { describe: "Write it there, for this user alone", usual: "print it" }),
} satisfies Record<string, Option<unknown>>;

export type KeyOptions = Values<typeof keyOptions>;
