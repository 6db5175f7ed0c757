import { expect, test } from "vitest";
import { curveKeyPair } from "zeromq";
import { readEnvironment } from "../../../src/worker/environment.js";
import { WorkerStore } from "../../../src/worker/store.js";

const { publicKey, secretKey } = curveKeyPair();
const variables = {
  ...{ RANK: "1", LOCAL_RANK: "1", WORLD_SIZE: "2", LOCAL_WORLD_SIZE: "2" },
  ...{ MASTER_ADDR: "127.0.0.1", MASTER_PORT: "29500", DITRUN_TIMEOUT: "2.5" },
  ...{ DITRUN_SERVER_KEY: publicKey, DITRUN_PUBLIC_KEY: publicKey, DITRUN_SECRET_KEY: secretKey },
};

test("a worker's variables are read", () => {
  expect(readEnvironment(variables)).toEqual({
    ...{ rank: 1, size: 2, address: "127.0.0.1", port: 29_500, timeoutSeconds: 2.5 },
    ...{ serverKey: publicKey, publicKey, secretKey },
  });
});

test.each([
  ["RANK", "", "The environment variable RANK is not set"],
  ["RANK", "2", "RANK is 2, but WORLD_SIZE is 2: ranks are 0 to 1."],
  ["WORLD_SIZE", "0", "WORLD_SIZE is 0; it must be a whole number of at least 1."],
  ["MASTER_PORT", "65536", "MASTER_PORT is 65536; it must be a whole number from 1 to 65535."],
  ["DITRUN_TIMEOUT", "soon", "DITRUN_TIMEOUT is soon; it must be a number of seconds above 0."],
  ["DITRUN_SECRET_KEY", "abc", "DITRUN_SECRET_KEY has 3 characters; it must be the 40 of a CURVE key in Z85."],
])("%s=%s is refused", (name, value, message) => {
  expect(() => readEnvironment({ ...variables, [name]: value })).toThrow(message);
});

test("an address that is none is a sentence", async () => {
  const environment = readEnvironment({ ...variables, MASTER_ADDR: "no address" });
  await expect(WorkerStore.join(environment)).rejects.toThrow(
    "There is no way to a launcher at no address:29500 (Invalid argument): check MASTER_ADDR and MASTER_PORT.",
  );
});
