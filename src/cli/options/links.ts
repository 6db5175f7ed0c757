import { asText, type Option, optional, type Values, whole, withDefault } from "../option.js";

/** Message sizes where none are given. */
export const usualSizes = { cuda: "64K,256K,1M,4M,16M,64M,256M", cpu: "1K,64K,1M" };

/** Of `ditrun links`. */
export const linksOptions = {
  sizes: optional(
    {
      value: "SIZE,SIZE…",
      describe: "Bytes of a message, separated by commas; K is 1024 and M 1024 K",
      usual: `${usualSizes.cuda}; on a CPU ${usualSizes.cpu}`,
    },
    asText,
  ),
  repetitions: withDefault(
    { value: "N", describe: "Times that each pattern and size is measured", usual: "10" },
    10,
    whole(1),
  ),
  transports: optional(
    {
      value: "peer|nccl|peer,nccl",
      describe: "What carries the messages",
      usual: "both where each worker has its own GPU, else peer",
    },
    asText,
  ),
} satisfies Record<string, Option<unknown>>;

export type LinksOptions = Values<typeof linksOptions>;
