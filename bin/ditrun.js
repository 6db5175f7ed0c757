#!/usr/bin/env node
const load = (name) => import(`../dist/launcher/${name}.js`);
const end = (error, hint, exitCode) => {
  process.stderr.write(`ditrun: ${String(error.message).split("\n")[0]}${hint}\n`);
  process.exit(exitCode);
};
const notLoaded = (error) =>
  end(
    { message: `The launcher could not be loaded (${String(error.message).split("\n")[0]})` },
    ": run npm ci, or npm run build, in its folder.",
    3,
  );

// First, since until then a scheduler's warning (SIGUSR1) would open Node's debugger to every user of the host.
const { checkSurroundings, tellOfWarnings } = await load("surroundings").catch(notLoaded);
tellOfWarnings();
try {
  checkSurroundings();
} catch (error) {
  end(error, "", error.exitCode);
}
const [cli, streams] = await Promise.all([load("cli"), load("standard-streams")]).catch(notLoaded);

streams.watchStandardStreams();
const exitCode = await cli.main(process.argv.slice(2));
process.exitCode ||= exitCode;
streams.endWithUnreadStderr();
