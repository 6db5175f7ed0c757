import { createInterface } from "node:readline";
import { z } from "zod";
import { messageOf } from "../../failure.js";
import { Examination } from "../runtime/examination.js";

// Run by `ditrun doctor`: node main.js FILE.so INDEX. It answers each line of JSON on its stdin with one on its stdout, and ends with its
// stdin. Where the module ends this process, the doctor knows by which question.

const questionSchema = z.discriminatedUnion("ask", [
  z.object({ ask: z.literal("open") }),
  z.object({ ask: z.literal("sum") }),
  z.object({ ask: z.literal("product") }),
  z.object({ ask: z.literal("lend"), bytes: z.int(), value: z.number() }),
  z.object({
    ...{ ask: z.literal("borrow"), handle: z.string(), bytes: z.int(), value: z.number() },
    timed: z.boolean(),
  }),
  z.object({ ask: z.literal("rates") }),
]);

const [file = "", index = "0"] = process.argv.slice(2);
let examination: Examination | undefined;

/** The examined device, which the first question opens. */
function opened(): Examination {
  examination ??= new Examination(file, Number(index));
  return examination;
}

function answer(question: z.infer<typeof questionSchema>): object {
  const device = opened();
  switch (question.ask) {
    case "open":
      return { devices: device.devices, info: device.info, libraries: device.libraries() };
    case "sum":
      device.sum();
      return {};
    case "product":
      device.product();
      return {};
    case "lend":
      return { handle: device.lend(question.bytes, question.value) };
    case "borrow":
      return { gigabytesPerSecond: device.borrow(question.handle, question.bytes, question.value, question.timed) };
    case "rates":
      return device.rates();
  }
}

for await (const line of createInterface({ input: process.stdin })) {
  let result: object;
  try {
    result = answer(questionSchema.parse(JSON.parse(line)));
  } catch (error) {
    result = { error: messageOf(error) };
  }
  process.stdout.write(`${JSON.stringify(result)}\n`);
}
examination?.close();
