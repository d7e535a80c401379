/**
 * How the operator's commands reach a running server (decision 0015): a Unix socket in the data folder that only the
 * server's own user may open. One request and its answer to a connection, each a line of JSON:
 *
 *   → {"v":1,"operation":"ban","input":{…}}
 *   ← {"v":1,"type":"progress","progress":{…}}        any number
 *   ← {"v":1,"type":"answer","answer":{…}}  |  {"v":1,"type":"refused","code","message","hint"}
 *
 * Ending the connection gives up what it asked for.
 */
import { chmodSync, mkdirSync, renameSync, rmSync } from 'node:fs';
import net from 'node:net';
import path from 'node:path';
import { RpcError, statusName } from '@quicprochat/transport';
import { Status } from '@quicprochat/proto';
import { z } from 'zod';
import type { Log } from '../context.ts';
import { StartupError } from '../startup-error.ts';
import { StoreError } from '../store/store.ts';

const NAME = 'control.sock';
const REQUEST_CHARS_MAX = 64 * 1024;
const ANSWER_CHARS_MAX = 32 * 1024 * 1024;
const CONNECTIONS_MAX = 16;
/** How long a request may take to arrive. */
const REQUEST_MS_MAX = 10_000;
/** How long an answer may lie unread. */
const ANSWER_MS_MAX = 10_000;
/** Of an address, with its closing zero; macOS has 104. */
const PATH_BYTES_MAX = 103;

/** What an operation may do besides answering. */
interface ControlCall {
  progress(progress: object): void;
  /** Aborted when nobody waits for the answer any more. */
  readonly signal: AbortSignal;
}

export type ControlHandlers = ReadonlyMap<string, (input: unknown, call: ControlCall) => Promise<unknown>>;

export interface ControlListener {
  /** Gives up what is in progress, and waits until it has. */
  close(): Promise<void>;
}

const requestSchema = z.strictObject({ v: z.literal(1), operation: z.string().max(64), input: z.unknown() });

/** Undefined where there are no such sockets, or the folder's name is too long for one. */
export async function listenControl(
  dataDir: string,
  handlers: ControlHandlers,
  log: Log,
): Promise<ControlListener | undefined> {
  if (process.platform === 'win32') return undefined;
  const file = path.join(dataDir, NAME);
  const sockets = new Set<net.Socket>();
  const working = new Set<Promise<void>>();
  const server = net.createServer({ allowHalfOpen: true }, (socket) => {
    sockets.add(socket);
    socket.once('close', () => sockets.delete(socket));
    serve(socket, handlers, log, (work) => {
      working.add(work);
      void work.finally(() => working.delete(work));
    });
  });
  server.maxConnections = CONNECTIONS_MAX;
  // Between its making and its mode anybody could open it, so that happens in a folder that only we may enter. Giving it
  // its name replaces what a killed server left.
  const folder = path.join(dataDir, `.c${process.pid}`);
  const temporary = path.join(folder, 's');
  const address = addressOf(temporary);
  if (address === undefined || addressOf(file) === undefined) {
    log.warn({}, 'no control socket: the name of the data folder is too long for one');
    return undefined;
  }
  try {
    // Of one that was killed here and had the same process id, as in a container.
    rmSync(folder, { recursive: true, force: true });
    mkdirSync(folder, { mode: 0o700 });
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject);
      server.listen(address, resolve);
    });
    chmodSync(temporary, 0o600);
    renameSync(temporary, file);
  } catch (error) {
    server.close();
    throw new StartupError('data', `${file} cannot be made`, 'Check the data folder: it has to be on a local disk.', {
      cause: error,
    });
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
  return {
    close: async () => {
      rmSync(file, { force: true });
      const closed = new Promise<void>((resolve) => server.close(() => resolve()));
      for (const socket of sockets) socket.destroy();
      await closed;
      // What they made so far is tidied away before the process may end.
      await Promise.all(working);
    },
  };
}

/** The shorter way of saying it; undefined when both are too long. */
function addressOf(file: string): string | undefined {
  const relative = path.relative(process.cwd(), file);
  const shorter = relative.length < file.length ? relative : file;
  return Buffer.byteLength(shorter) <= PATH_BYTES_MAX ? shorter : undefined;
}

function serve(socket: net.Socket, handlers: ControlHandlers, log: Log, begun: (work: Promise<void>) => void): void {
  const gone = new AbortController();
  const write = (line: object): void => {
    if (!socket.destroyed) socket.write(`${JSON.stringify({ v: 1, ...line })}\n`);
  };
  const finish = (line: object): void => {
    if (socket.destroyed) return;
    socket.end(`${JSON.stringify({ v: 1, ...line })}\n`);
    // Who neither reads nor leaves takes a place from others.
    socket.setTimeout(ANSWER_MS_MAX, () => socket.destroy());
  };
  const late = setTimeout(() => socket.destroy(), REQUEST_MS_MAX).unref();
  let text = '';
  let asked = false;
  socket.setEncoding('utf8');
  socket.on('error', () => {});
  socket.on('close', () => {
    clearTimeout(late);
    gone.abort(new Error('nobody waits for the answer'));
  });
  socket.on('end', () => socket.destroy());
  socket.on('data', (chunk: string) => {
    if (asked) return void socket.destroy();
    text += chunk;
    if (text.length > REQUEST_CHARS_MAX) return void socket.destroy();
    const end = text.indexOf('\n');
    if (end < 0) return;
    if (end < text.length - 1) return void socket.destroy();
    asked = true;
    clearTimeout(late);
    begun(answer(text.slice(0, end)).then(finish, (error: unknown) => finish(refusalOf(error, log))));
  });

  async function answer(line: string): Promise<object> {
    const request = requestSchema.safeParse(parsedJson(line));
    const handler = request.success ? handlers.get(request.data.operation) : undefined;
    if (!request.success || handler === undefined) {
      throw new RpcError(Status.UNIMPLEMENTED, 'this server does not know the request', {
        hint: 'Use the qpc-server of the same version.',
      });
    }
    const call: ControlCall = { progress: (progress) => write({ type: 'progress', progress }), signal: gone.signal };
    return { type: 'answer', answer: await handler(request.data.input, call) };
  }
}

function parsedJson(text: string): unknown {
  try {
    return JSON.parse(text) as unknown;
  } catch {
    return undefined;
  }
}

function refusalOf(error: unknown, log: Log): object {
  if (error instanceof RpcError) {
    const { message, hint } = error;
    return { type: 'refused', code: statusName(error.status).replaceAll(' ', '-'), message, hint };
  }
  if (error instanceof StartupError) {
    const { message, hint } = error;
    return { type: 'refused', code: error.kind, message, hint };
  }
  if (error instanceof StoreError && error.kind !== 'internal' && error.kind !== 'misuse') {
    log.warn({ err: error }, 'an operator’s request was refused by the store');
    return {
      type: 'refused',
      code: error.kind.replaceAll('_', '-'),
      message: error.message,
      hint: 'See the server’s log.',
    };
  }
  log.error({ err: error }, 'an operator’s request failed');
  return { type: 'refused', code: 'internal', message: 'a fault of the server', hint: 'See the server’s log.' };
}

/** A server that runs said no. `code` is one of the status words, or a `StoreErrorKind` or `StartupErrorKind`. */
export class OperatorRefusal extends Error {
  override readonly name = 'OperatorRefusal';
  readonly code: string;
  readonly hint: string;

  constructor(code: string, message: string, hint: string) {
    super(message);
    this.code = code;
    this.hint = hint;
  }
}

/** The server is there and does not answer properly. */
export class ControlError extends Error {
  override readonly name = 'ControlError';
}

const answerSchema = z.discriminatedUnion('type', [
  z.object({ v: z.literal(1), type: z.literal('progress'), progress: z.record(z.string(), z.unknown()) }),
  z.object({ v: z.literal(1), type: z.literal('answer'), answer: z.unknown() }),
  z.object({
    v: z.literal(1),
    type: z.literal('refused'),
    code: z.string(),
    message: z.string(),
    hint: z.string(),
  }),
]);

export interface ControlCallOptions {
  readonly onProgress?: (progress: Readonly<Record<string, unknown>>) => void;
  readonly signal?: AbortSignal | undefined;
}

export type ControlOutcome =
  | { readonly kind: 'answer'; readonly answer: unknown }
  /** Nobody listens on this data folder. */
  | { readonly kind: 'not-running' };

/**
 * Asks the server that has a data folder open.
 * @throws OperatorRefusal when it says no, ControlError when it breaks off
 */
export function callControl(
  dataDir: string,
  operation: string,
  input: object,
  { onProgress, signal }: ControlCallOptions = {},
): Promise<ControlOutcome> {
  const address = addressOf(path.join(dataDir, NAME));
  if (address === undefined || process.platform === 'win32') return Promise.resolve({ kind: 'not-running' });
  return new Promise((resolve, reject) => {
    signal?.throwIfAborted();
    const socket = net.createConnection(address);
    let text = '';
    const abort = (): void => {
      reject(signal?.reason as Error);
      socket.destroy();
    };
    signal?.addEventListener('abort', abort, { once: true });
    socket.setEncoding('utf8');
    socket.once('connect', () => socket.write(`${JSON.stringify({ v: 1, operation, input })}\n`));
    socket.on('data', (chunk: string) => {
      text += chunk;
      for (let end = text.indexOf('\n'); end >= 0; end = text.indexOf('\n')) {
        const parsed = answerSchema.safeParse(parsedJson(text.slice(0, end)));
        text = text.slice(end + 1);
        if (!parsed.success) return void broken();
        if (parsed.data.type === 'progress') onProgress?.(parsed.data.progress);
        else if (parsed.data.type === 'answer') resolve({ kind: 'answer', answer: parsed.data.answer });
        else reject(new OperatorRefusal(parsed.data.code, parsed.data.message, parsed.data.hint));
      }
      if (text.length > ANSWER_CHARS_MAX) broken();
    });
    socket.once('error', (error: Error & { code?: string }) => {
      if (error.code === 'ENOENT' || error.code === 'ECONNREFUSED' || error.code === 'ENOTDIR') {
        resolve({ kind: 'not-running' });
      } else if (error.code === 'EACCES' || error.code === 'EPERM') {
        reject(
          new StartupError(
            'data',
            `the server of ${dataDir} belongs to another user`,
            'Run this as that user, or root.',
          ),
        );
      } else broken();
    });
    socket.once('close', () => {
      signal?.removeEventListener('abort', abort);
      broken();
    });
    // Without effect once there was an answer.
    function broken(): void {
      reject(new ControlError('the server broke off before it had answered'));
      socket.destroy();
    }
  });
}
