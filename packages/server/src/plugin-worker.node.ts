/**
 * The thread of one plugin: loads its module, runs its hooks, and checks what they say. Whatever a plugin throws ends
 * here; what it may return is one of two things, and everything else is a failure.
 */
import { parentPort, workerData } from 'node:worker_threads';
import { HOOK_NAMES } from './plugin.ts';
import type { HookName, PluginHost } from './plugin.ts';
import { REASON_CHARACTERS_MAX, RETRY_MS_MAX, WORDS_MAX } from './plugin-messages.ts';
import type { FromPlugin, PluginAnswer, PluginWorkerData, ToPlugin } from './plugin-messages.ts';

type AnyHook = (event: object) => unknown;

const NAME = /^[a-z0-9-]{1,32}$/;
/** The server keeps fewer; this keeps its event loop from reading what it drops. */
const LOG_LINES_PER_SECOND = 400;

const port = parentPort;
if (port === null) throw new Error('this is the thread of a plugin');
const say = (message: FromPlugin): void => port.postMessage(message);
const { url, ...surroundings } = workerData as PluginWorkerData;

let second = 0;
let linesOfSecond = 0;
function sayForLog(message: string, fields: Readonly<Record<string, unknown>>): void {
  const now = Math.floor(performance.now() / 1000);
  if (now !== second) [second, linesOfSecond] = [now, 0];
  if (linesOfSecond++ < LOG_LINES_PER_SECOND) say({ kind: 'log', message: message.slice(0, WORDS_MAX), fields });
}

// A promise that a plugin forgot ends neither the thread nor anything else.
process.on('unhandledRejection', (reason) => {
  sayForLog(`a promise was rejected and nobody looked: ${wordsOf(reason)}`, {});
});

const host: PluginHost = Object.freeze({
  ...surroundings,
  log: (message: unknown, fields: unknown) => {
    const plain = typeof fields === 'object' && fields !== null ? Object.entries(fields).slice(0, 32) : [];
    const printable = plain.map(([name, value]): [string, unknown] => [
      name.slice(0, 64),
      value === null || ['number', 'boolean'].includes(typeof value) ? value : String(value).slice(0, WORDS_MAX),
    ]);
    sayForLog(String(message), Object.fromEntries(printable));
  },
});

try {
  const module = (await import(url)) as { default?: unknown };
  const made: unknown =
    typeof module.default === 'function' ? await (module.default as (h: unknown) => unknown)(host) : undefined;
  const { name, hooks, onFailure } = checked(made);
  port.on('message', (message: ToPlugin) => {
    if (message.kind === 'ping') say({ kind: 'pong' });
    else void answer(hooks.get(message.hook), message);
  });
  say({ kind: 'ready', name, hooks: [...hooks.keys()], onFailure });
} catch (error) {
  say({ kind: 'unusable', reason: wordsOf(error) });
}

async function answer(hook: AnyHook | undefined, { id, event }: ToPlugin & { kind: 'ask' }): Promise<void> {
  let said: PluginAnswer;
  try {
    said = answerOf(await hook?.(Object.freeze(event)));
  } catch (error) {
    said = { kind: 'failed', reason: wordsOf(error) };
  }
  say({ kind: 'answer', id, answer: said });
}

function answerOf(verdict: unknown): PluginAnswer {
  if (verdict === undefined || verdict === null) return { kind: 'allowed' };
  if (typeof verdict !== 'object') return { kind: 'failed', reason: 'a verdict is nothing, or { reject }' };
  const { reject, retryAfterMs } = verdict as { reject?: unknown; retryAfterMs?: unknown };
  if (typeof reject !== 'string') return { kind: 'failed', reason: 'a verdict is nothing, or { reject: text }' };
  const isTime =
    retryAfterMs === undefined ||
    (typeof retryAfterMs === 'number' && retryAfterMs >= 0 && retryAfterMs <= RETRY_MS_MAX);
  if (!isTime) return { kind: 'failed', reason: 'retryAfterMs is a number of milliseconds, a day at most' };
  return { kind: 'rejected', reason: reject.slice(0, REASON_CHARACTERS_MAX), retryAfterMs };
}

function checked(made: unknown): { name: string; hooks: Map<HookName, AnyHook>; onFailure: object } {
  if (typeof made !== 'object' || made === null) {
    throw new TypeError('the default export has to be a function that returns a plugin');
  }
  const { name, hooks, onFailure = {} } = made as { name?: unknown; hooks?: unknown; onFailure?: unknown };
  if (typeof name !== 'string' || !NAME.test(name)) throw new TypeError('its name has to match [a-z0-9-]{1,32}');
  if (typeof hooks !== 'object' || hooks === null) throw new TypeError('it has no hooks');
  const found = new Map<HookName, AnyHook>();
  for (const [hook, run] of Object.entries(hooks) as [string, unknown][]) {
    const known = HOOK_NAMES.find((each) => each === hook);
    if (known === undefined) throw new TypeError(`there is no hook "${hook}"; there are ${HOOK_NAMES.join(', ')}`);
    if (run === undefined) continue;
    if (typeof run !== 'function') throw new TypeError(`its hook "${hook}" is not a function`);
    found.set(known, (event) => (run as AnyHook).call(hooks, event));
  }
  if (typeof onFailure !== 'object' || onFailure === null) throw new TypeError('onFailure is no object');
  for (const [hook, policy] of Object.entries(onFailure)) {
    if (!HOOK_NAMES.some((each) => each === hook)) throw new TypeError(`onFailure names no hook: "${hook}"`);
    if (policy !== 'allow' && policy !== 'refuse') throw new TypeError(`onFailure.${hook} is "allow" or "refuse"`);
  }
  return { name, hooks: found, onFailure };
}

function wordsOf(error: unknown): string {
  try {
    return (error instanceof Error ? error.message : String(error)).slice(0, WORDS_MAX);
  } catch {
    return 'something that has no words';
  }
}
