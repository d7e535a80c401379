/**
 * Loaded into the demo's server before its own code (`--import`): when the demo is gone, however it ended, its end of our
 * standard input closes, and the server is asked to stop. The server itself reads no input.
 */
import { isMainThread } from 'node:worker_threads';

if (isMainThread) {
  process.stdin.on('error', stop).on('end', stop).resume();
  // Listening for it is no reason to go on.
  if ('unref' in process.stdin) process.stdin.unref();
}

function stop(): void {
  process.kill(process.pid, 'SIGTERM');
}
