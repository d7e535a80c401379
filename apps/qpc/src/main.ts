/** The program's entry: runs the command line and ends the process once all output is written. */
import { runCli } from './cli.ts';

const exitCode = await runCli(process.argv.slice(2));
await Promise.all([process.stdout, process.stderr].map(drained));
// Not by waiting for the event loop: standard input or a connection that is being closed must not hold the shell.
process.exit(exitCode);

async function drained(stream: NodeJS.WriteStream): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  stream.write('', () => resolve());
  stream.on('error', () => resolve());
  await promise;
}
