#!/usr/bin/env node
import { main } from "../dist/launcher/cli.js";
import { watchStandardStreams } from "../dist/launcher/standard-streams.js";

watchStandardStreams();
const exitCode = await main(process.argv.slice(2));
process.exitCode ||= exitCode;
