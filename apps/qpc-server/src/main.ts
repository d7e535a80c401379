// `qpc-server`: serves, and does what an operator wants of a server.
import { run } from './run.ts';

// Everything is closed by then; threads of an engine that never listened would keep the process alive.
process.exit(await run(process.argv.slice(2), process.env));
