import { z } from "zod";
import { type FailureCode, failureCodes } from "../failure-codes.js";

/** A failure's code as it comes from another process or thread. */
export const failureCodeSchema = z.custom<FailureCode>(
  (value) => typeof value === "string" && Object.hasOwn(failureCodes, value),
  "it is not the code of a failure",
);
