import { expect, test } from "vitest";
import { connectTo } from "../../../src/protocol/connect.js";

test("a signal in the middle of a connect is no failure; anything else is", () => {
  const codes = ["EINTR", "EINTR"];
  const tried: string[] = [];
  const socket = {
    connect(address: string) {
      tried.push(address);
      const code = codes.shift();
      if (code !== undefined) throw Object.assign(new Error("Interrupted system call"), { code });
    },
  };
  connectTo(socket, "tcp://10.0.0.1:1");
  expect(tried).toEqual(Array(3).fill("tcp://10.0.0.1:1"));
  codes.push("EINVAL");
  expect(() => connectTo(socket, "nowhere")).toThrow("Interrupted system call");
});
