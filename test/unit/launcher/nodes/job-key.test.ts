import { chmodSync, mkdtempSync, rmSync, statSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, test } from "vitest";
import { curveKeyPair } from "zeromq";
import { curvePairs, makeJobKey } from "../../../../src/launcher/nodes/job-key.js";
import { readMeeting, readSecret, writeMeeting } from "../../../../src/launcher/nodes/meeting-file.js";
import { decodeZ85 } from "../../../../src/launcher/rendezvous/zap.js";

const folder = mkdtempSync(join(tmpdir(), "ditrun-key-"));
afterAll(() => rmSync(folder, { recursive: true }));

describe("a job's key", () => {
  test("is new each time, and stands for the same two CURVE pairs everywhere", () => {
    const [one, other] = [makeJobKey(), makeJobKey()];
    expect(one).toMatch(/^[\w-]{43}$/);
    expect(one).not.toBe(other);
    const { leader, follower } = curvePairs(one, "a test");
    expect(curvePairs(`${one}\n`, "a test")).toEqual({ leader, follower });
    expect(new Set([leader, follower, curvePairs(other, "a test").leader].map(({ publicKey }) => publicKey)).size).toBe(
      3,
    );
    for (const { publicKey, secretKey } of [leader, follower]) {
      expect(publicKey).toHaveLength(curveKeyPair().publicKey.length);
      expect(decodeZ85(publicKey)).toHaveLength(32);
      expect(secretKey).not.toBe(publicKey);
    }
  });

  test.each(["", "short", "!".repeat(43), "A".repeat(44)])("is refused: %s", (key) => {
    expect(() => curvePairs(key, "DITRUN_JOB_KEY")).toThrow(
      expect.objectContaining({ code: "ERR_JOB_KEY", message: expect.stringContaining("DITRUN_JOB_KEY") }),
    );
    if (key !== "") expect(() => curvePairs(key, "x")).not.toThrow(new RegExp(`"${key}"`));
  });
});

describe("a file with a key", () => {
  test.each([0o640, 0o604, 0o620])("is refused with rights for others: %o", async (mode) => {
    const file = join(folder, `open-${mode}`);
    writeFileSync(file, makeJobKey());
    chmodSync(file, mode);
    await expect(readSecret(file)).rejects.toMatchObject({
      code: "ERR_JOB_KEY",
      message: expect.stringContaining("chmod 600"),
    });
  });

  test("is read through a link, as Kubernetes lays out secrets", async () => {
    const [file, link] = [join(folder, "data"), join(folder, "link")];
    writeFileSync(file, "text", { mode: 0o400 });
    symlinkSync(file, link);
    expect(await readSecret(link)).toBe("text");
  });

  test("of a meeting is written whole, for one user, and again", async () => {
    const file = join(folder, "jobs", "slurm-1.json");
    const meeting = { addresses: ["10.0.0.1", "fd00::1"], port: 7, key: makeJobKey() };
    await writeMeeting(file, { ...meeting, port: 8 });
    await writeMeeting(file, meeting);
    expect(await readMeeting(file)).toEqual(meeting);
    expect(statSync(file).mode & 0o777).toBe(0o600);
    writeFileSync(file, '{"addresses":[]}');
    await expect(readMeeting(file)).rejects.toThrow();
  });
});
