#!/usr/bin/env node
// Nothing here is newer than Node 12, so that an old one can be told that it is too old.
import { nodeIsTooOld } from "./node-version.js";

const load = (name) => import(`../dist/${name}.js`);
const end = (message, exitCode) => {
  process.stderr.write(`ditrun: ${String(message).split("\n")[0]}\n`);
  process.exit(exitCode);
};
const notLoaded = (error) => {
  const hint = error.code === "ERR_MODULE_NOT_FOUND" ? ": run npm ci, or npm run build, in its folder" : "";
  end(`The launcher could not be loaded (${String(error.message).split("\n")[0]})${hint}.`, 3);
};

// A signal that comes while the launcher is loaded waits for it, so that it is answered as any later one.
const early = [];
const keep = (signal) => early.push(signal);
const interrupts = ["SIGINT", "SIGTERM"];

async function start() {
  // First, since until then a scheduler's warning (SIGUSR1) would open Node's debugger to every user of the host.
  const { checkSurroundings, tellOfWarnings } = await load("cli/surroundings").catch(notLoaded);
  tellOfWarnings();
  try {
    checkSurroundings();
  } catch (error) {
    end(error.message, error.exitCode);
  }
  const [cli, streams] = await Promise.all([load("cli/main"), load("cli/standard-streams")]).catch(notLoaded);

  streams.watchStandardStreams();
  const running = cli.main(process.argv.slice(2));
  for (const signal of interrupts) process.off(signal, keep);
  for (const signal of early) process.emit(signal, signal);
  const exitCode = await running;
  process.exitCode = process.exitCode || exitCode;
  streams.endWithUnreadStderr();
}

const tooOld = nodeIsTooOld(process.versions.node);
if (tooOld !== undefined) {
  end(tooOld, 3);
} else {
  for (const signal of interrupts) process.on(signal, keep);
  start();
}
