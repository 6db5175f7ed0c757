import { type ChildProcess, spawn } from "node:child_process";
import { readdirSync } from "node:fs";
import { afterEach, describe, expect, it } from "vitest";
import {
  allocate,
  check,
  download,
  downloadBytes,
  F32,
  freeAll,
  lastError,
  made,
  poisoned,
  raw,
  stream,
  streamSynchronizeAsync,
  upload,
} from "./module.js";

const streams: number[] = [];
function newStream(): number {
  const made_ = made((result) => raw.streamCreate(0, result));
  streams.push(made_);
  return made_;
}
const newEvent = () => made((result) => raw.eventCreate(result));
const wait = (milliseconds: number) => new Promise((resolve) => setTimeout(resolve, milliseconds));
function newFlag(): number {
  const flag = allocate(4, 1);
  check(raw.fillZero(flag, 4, stream));
  check(raw.streamSynchronize(stream));
  return flag;
}
const setFlag = (flag: number, value = 1) => check(raw.flagsWrite([flag], 1, value, stream));

afterEach(() => {
  for (const one of streams.splice(0)) check(raw.streamDestroy(one));
  freeAll();
});

describe("streams, events and flags of the CPU module", () => {
  it("runs work in order, and across streams where an event says so", async () => {
    const [first, second, flag, event] = [newStream(), newStream(), newFlag(), newEvent()];
    const source = upload([1, 2, 3], F32);
    const [between, target] = [poisoned(3, F32), poisoned(3, F32)];
    check(raw.streamSynchronize(stream));
    check(raw.flagsWait([flag], 1, 1, first));
    check(raw.copy(between, source, 12, first));
    check(raw.eventRecord(event, first));
    check(raw.streamWaitEvent(second, event));
    check(raw.copy(target, between, 12, second));
    const finished = streamSynchronizeAsync(second);
    await wait(20);
    expect([...download(target, 3, F32)]).toEqual([Number.NaN, Number.NaN, Number.NaN]);
    setFlag(flag);
    check(await finished);
    expect([...download(target, 3, F32)]).toEqual([1, 2, 3]);
    expect(downloadBytes(flag, 4)).toEqual(new Uint8Array(4));
    check(raw.eventDestroy(event));
  });

  it("times what lies between two events, and says which has not completed", () => {
    const [one, flag, start, end] = [newStream(), newFlag(), newEvent(), newEvent()];
    const elapsed = (result: number[]) => raw.eventElapsed(start, end, result);
    expect(elapsed([0])).toBe(1);
    expect(lastError()).toMatch(new RegExp(`event ${start} was never recorded`));
    check(raw.eventRecord(start, one));
    check(raw.flagsWait([flag], 1, 0, one));
    check(raw.eventRecord(end, one));
    expect(elapsed([0])).toBe(1);
    expect(lastError()).toMatch(/has not completed/);
    setFlag(flag);
    check(raw.streamSynchronize(one));
    expect(made(elapsed)).toBeGreaterThan(0);
  });

  it("destroying a stream ends its wait for a flag or an event", async () => {
    const [one, two, flag, event] = [newStream(), newStream(), newFlag(), newEvent()];
    check(raw.flagsWait([flag], 1, 0, one));
    check(raw.eventRecord(event, one));
    check(raw.streamWaitEvent(two, event));
    await wait(10);
    streams.length = 0;
    check(raw.streamDestroy(one));
    // The event will never come: the stream that waits for it is told so.
    expect(await streamSynchronizeAsync(two)).toBe(2);
    expect(lastError()).toMatch(/destroyed before it reached this point/);
    check(raw.streamSynchronize(two));
    check(raw.streamDestroy(two));
    expect(raw.streamSynchronize(two)).toBe(1);
    expect(lastError()).toMatch(new RegExp(`no stream ${two}`));
  });

  it("copies rows with pitches and fills with zeros", () => {
    const source = upload([1, 2, 3, 4, 5, 6], F32);
    const target = poisoned(8, F32);
    check(raw.copy2d(target, 16, source, 12, 8, 2, stream));
    expect([...download(target, 8, F32)]).toEqual([1, 2, NaN, NaN, 4, 5, NaN, NaN]);
    check(raw.fillZero(target, 8, stream));
    expect([...download(target, 3, F32)]).toEqual([0, 0, Number.NaN]);
    expect(raw.copy2d(target, 4, source, 12, 8, 2, stream)).toBe(1);
    expect(lastError()).toMatch(/rowBytes is 8 but the pitches are 4 and 12/);
  });

  it("counts memory, and refuses to free what it did not make", () => {
    const used = () => {
      const [now, peak] = [[0], [0]];
      check(raw.memoryUsed(now, peak));
      return [Number(now[0]), Number(peak[0])];
    };
    const [before = 0] = used();
    const address = made((result) => raw.malloc(1000, 0, result));
    expect(address % 256).toBe(0);
    const [during = 0, peak = 0] = used();
    expect(during - before).toBe(1000);
    expect(peak).toBeGreaterThanOrEqual(during);
    check(raw.free(address));
    expect(used()[0]).toBe(before);
    expect(raw.free(address)).toBe(1);
    expect(lastError()).toMatch(new RegExp(`address ${address} `));
    expect(raw.malloc(2 ** 52, 0, [0])).toBe(5);
    expect(lastError()).toMatch(/4503599627370496 bytes/);
  });

  it("describes the device as JSON", () => {
    const text = Buffer.alloc(1024);
    check(raw.deviceInfo(text, text.length));
    const info: unknown = JSON.parse(text.toString("utf8", 0, text.indexOf(0)));
    expect(info).toMatchObject({ module: "cpu", computeCapability: null, peakTflops: { f32: null } });
    expect(raw.deviceInfo(text, 10)).toBe(1);
    expect(lastError()).toMatch(/capacity is 10/);
  });
});

describe("captured graphs of the CPU module", () => {
  it("records without running, then replays with what memory holds at each launch", () => {
    const one = newStream();
    const [x, y, sum] = [upload([1, 2], F32), upload([10, 20], F32), poisoned(2, F32)];
    check(raw.captureBegin(one));
    check(raw.add(sum, x, y, 2, F32, one));
    check(raw.add(sum, sum, y, 2, F32, one));
    expect(raw.streamSynchronize(one)).toBe(1);
    expect(lastError()).toMatch(/is being captured/);
    const graph = made((result) => raw.captureEnd(one, result));
    check(raw.streamSynchronize(one));
    expect([...download(sum, 2, F32)]).toEqual([Number.NaN, Number.NaN]);
    check(raw.graphLaunch(graph, one));
    check(raw.streamSynchronize(one));
    expect([...download(sum, 2, F32)]).toEqual([21, 42]);
    check(raw.copy(x, y, 8, one));
    check(raw.graphLaunch(graph, one));
    // What is queued already does not need the graph any more.
    check(raw.graphDestroy(graph));
    check(raw.streamSynchronize(one));
    expect([...download(sum, 2, F32)]).toEqual([30, 60]);
    expect(raw.graphLaunch(graph, one)).toBe(1);
    expect(lastError()).toMatch(new RegExp(`no graph ${graph}`));
  });

  it("lanes run beside each other: work can wait for a flag that another lane sets later", () => {
    const [main, side] = [newStream(), newStream()];
    const [fork, join] = [newEvent(), newEvent()];
    const [flag, x, y] = [newFlag(), upload([7], F32), poisoned(1, F32)];
    check(raw.captureBegin(main));
    check(raw.eventRecord(fork, main));
    check(raw.streamWaitEvent(side, fork));
    check(raw.flagsWait([flag], 1, 1, main));
    check(raw.copy(y, x, 4, side));
    check(raw.flagsWrite([flag], 1, 1, side));
    check(raw.eventRecord(join, side));
    check(raw.streamWaitEvent(main, join));
    check(raw.add(y, y, x, 1, F32, main));
    const graph = made((result) => raw.captureEnd(main, result));
    for (let launch = 0; launch < 50; launch++) check(raw.graphLaunch(graph, main));
    check(raw.graphDestroy(graph));
    check(raw.streamSynchronize(main));
    expect([...download(y, 1, F32)]).toEqual([14]);
    // After the capture both streams run what they are given again.
    check(raw.copy(y, x, 4, side));
    check(raw.streamSynchronize(side));
    expect([...download(y, 1, F32)]).toEqual([7]);
    expect(raw.streamWaitEvent(main, join)).toBe(1);
    expect(lastError()).toMatch(/a capture that has ended/);
  });

  it("refuses a lane that nobody waits for, and events from outside of the capture", () => {
    const [main, side] = [newStream(), newStream()];
    const [fork, outside] = [newEvent(), newEvent()];
    const x = upload([7], F32);
    check(raw.eventRecord(outside, side));
    check(raw.captureBegin(main));
    expect(raw.streamWaitEvent(main, outside)).toBe(1);
    expect(lastError()).toMatch(/recorded outside of the capture/);
    check(raw.eventRecord(fork, main));
    check(raw.streamWaitEvent(side, fork));
    check(raw.copy(x, x, 4, side));
    expect(raw.captureEnd(main, [0])).toBe(1);
    expect(lastError()).toMatch(new RegExp(`stream ${side} joined the capture`));
    expect(raw.captureEnd(main, [0])).toBe(1);
    expect(lastError()).toMatch(/no capture was begun/);
  });
});

// A process that shares memory holding 1 and 2, says its handle, and waits for the flag behind them.
const peerProgram = `
import koffi from "koffi";
const library = koffi.load(process.argv[1]);
const call = (name, ...types) => library.func("ditrun_" + name, "int", types);
const address = [0], stream = [0], handle = Buffer.alloc(128);
call("malloc", "uint64_t", "int", "_Out_ uint64_t *")(5000, 1, address);
call("stream_create", "int", "_Out_ uint64_t *")(0, stream);
call("upload", "uint64_t", "void *", "uint64_t", "uint64_t")(address[0], Float32Array.of(1, 2, 0), 12, stream[0]);
call("peer_export", "uint64_t", "void *")(address[0], handle);
console.log(handle.toString("hex"));
const flags = [Number(address[0]) + 8];
call("flags_wait", "uint64_t *", "int", "int", "uint64_t")(flags, 1, 1, stream[0]);
call("stream_synchronize", "uint64_t").async(stream[0], () => console.log("released"));
process.stdin.resume();
`;

describe("peer memory of the CPU module", () => {
  const children: ChildProcess[] = [];
  afterEach(() => {
    for (const child of children.splice(0)) child.kill("SIGKILL");
  });

  /** Starts the program; `line` gives its next line of output. */
  function startPeer() {
    const library = new URL("../../build/libditrun_cpu.so", import.meta.url).pathname;
    const cwd = new URL("../..", import.meta.url).pathname;
    const child = spawn(process.execPath, ["--input-type=module", "-e", peerProgram, library], {
      cwd,
      stdio: ["pipe", "pipe", "inherit"],
    });
    children.push(child);
    const lines: string[] = [];
    const waiting: ((line: string) => void)[] = [];
    child.stdout.setEncoding("utf8").on("data", (text: string) => {
      for (const line of text.split("\n").filter(Boolean)) {
        const next = waiting.shift();
        if (next) next(line);
        else lines.push(line);
      }
    });
    const line = () =>
      new Promise<string>((resolve) => {
        const ready = lines.shift();
        if (ready === undefined) waiting.push(resolve);
        else resolve(ready);
      });
    return { child, line };
  }

  it("is read and written by another process, and outlives the one that made it", async () => {
    const named = () => readdirSync("/dev/shm").filter((name) => name.includes("ditrun"));
    const before = named();
    const { child, line } = startPeer();
    const handle = Buffer.from(await line(), "hex");
    const address = made((result) => raw.peerOpen(handle, result));
    expect([...download(address, 2, F32)]).toEqual([1, 2]);
    check(raw.flagsWrite([address + 8], 1, 1, stream));
    expect(await line()).toBe("released");
    expect(downloadBytes(address + 8, 4)).toEqual(new Uint8Array(4));

    const ended = new Promise((resolve) => child.on("exit", resolve));
    child.kill("SIGKILL");
    await ended;
    expect([...download(address, 2, F32)]).toEqual([1, 2]);
    expect(raw.peerOpen(handle, [0])).toBe(6);
    expect(lastError()).toMatch(new RegExp(`process ${child.pid} could not be opened: the process has ended`));
    check(raw.peerClose(address));
    expect(raw.peerClose(address)).toBe(1);
    expect(named()).toEqual(before);
  });

  it("notices that the memory behind a handle was freed", () => {
    const handle = Buffer.alloc(128);
    const address = made((result) => raw.malloc(64, 1, result));
    check(raw.peerExport(address, handle));
    check(raw.free(address));
    // The descriptor's number is likely taken again, by other memory.
    const other = made((result) => raw.malloc(64, 1, result));
    expect(raw.peerOpen(handle, [0])).toBe(6);
    expect(lastError()).toMatch(/is another file now|has ended, freed it/);
    check(raw.free(other));
  });

  it("refuses handles of something else and memory that cannot be shared", () => {
    expect(raw.peerOpen(Buffer.alloc(128), [0])).toBe(1);
    expect(lastError()).toMatch(/no handle of the CPU module/);
    const plain = allocate(64);
    expect(raw.peerExport(plain, Buffer.alloc(128))).toBe(1);
    expect(lastError()).toMatch(/was not allocated as peer memory/);
    const shared = allocate(64, 1);
    expect(raw.peerExport(shared + 4, Buffer.alloc(128))).toBe(1);
  });
});
