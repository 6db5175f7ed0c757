#!/usr/bin/env node
const [cli, streams] = await Promise.all([
  import("../dist/launcher/cli.js"),
  import("../dist/launcher/standard-streams.js"),
]).catch((error) => {
  const [reason] = String(error.message).split("\n");
  process.stderr.write(
    `ditrun: The launcher could not be loaded (${reason}): run npm ci, or npm run build, in its folder.\n`,
  );
  process.exit(3);
});

streams.watchStandardStreams();
const exitCode = await cli.main(process.argv.slice(2));
process.exitCode ||= exitCode;
