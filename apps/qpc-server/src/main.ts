// `qpc-server`: reads flags, environment and file, starts the server, says where it is, and stops when asked.
import { run } from './run.ts';

// Everything is closed by then; threads of an engine that never listened would keep the process alive.
process.exit(await run(process.argv.slice(2), process.env));
