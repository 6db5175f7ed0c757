#!/usr/bin/env node
import { main } from "../dist/launcher/cli.js";

// Whoever read the output has gone (`ditrun … | head`): there is nobody left to tell.
for (const stream of [process.stdout, process.stderr]) {
  stream.on("error", (error) => {
    if (error.code !== "EPIPE") throw error;
  });
}

process.exitCode = await main(process.argv.slice(2));
