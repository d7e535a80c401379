/**
 * Plugins in threads of their own (docs/plugins.md). A question goes to the thread and waits for a verdict until the
 * deadline; whatever else happens, the call goes on or is refused as the hook's policy says, and the server lives.
 *
 *   throws, says nonsense      that question has failed
 *   never answers              that question has failed at the deadline
 *   blocks its thread          all have failed by then; the thread is ended and started anew, ever later
 *   ends or runs out of memory likewise
 *   too many questions wait    the new ones have failed at once
 */
import { statSync } from 'node:fs';
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import { Worker } from 'node:worker_threads';
import { displayText } from '@quicprochat/core';
import type { Log, ServerClock } from './context.ts';
import { reasonOf } from './data-directory.node.ts';
import type { Observer } from './observer.ts';
import { ON_FAILURE } from './plugin.ts';
import type { HookEvents, HookName } from './plugin.ts';
import { REASON_CHARACTERS_MAX, RETRY_MS_MAX, WORDS_MAX } from './plugin-messages.ts';
import type { FailurePolicy, FromPlugin, PluginAnswer, PluginWorkerData, ToPlugin } from './plugin-messages.ts';
import type { Decision, Plugins } from './plugins.ts';
import { TokenBucket } from './rate-limits.ts';
import { StartupError } from './startup-error.ts';

export interface PluginHostOptions {
  /** Of modules, absolute or from the working folder. */
  readonly paths: readonly string[];
  readonly deadlineMs: number;
  readonly origin: string;
  readonly version: string;
  readonly environment: Readonly<Record<string, string | undefined>>;
  readonly clock: ServerClock;
  readonly log: Log;
  readonly observer: Observer;
}

export interface LoadedPlugins extends Plugins {
  /** Tells them that the server stops, and ends their threads. */
  close(): Promise<void>;
}

const LOAD_MS = 10_000;
const WAITING_MAX = 1_024;
const RESTART_MS = 1_000;
const RESTART_MS_MAX = 60_000;
const MEMORY_MIB = 256;
const LOG_LINES = { burst: 200, perHour: 36_000 };
const VIOLATIONS_MAX = 100;
const PRINTED_BYTES_MAX = 2_048;

const ALLOWED: Decision = { kind: 'allowed' };
const UNDECIDED: Decision = { kind: 'undecided' };

/** @throws StartupError when one of them cannot be used */
export async function loadPlugins(options: PluginHostOptions): Promise<LoadedPlugins> {
  const threads: PluginThread[] = [];
  try {
    for (const file of options.paths) {
      const thread = new PluginThread(file, options);
      threads.push(thread);
      await thread.load();
      if (threads.some((other) => other !== thread && other.name === thread.name)) {
        throw new StartupError('config', `two plugins are called "${thread.name}"`, 'Name each of them once.');
      }
    }
  } catch (error) {
    await Promise.all(threads.map((thread) => thread.end()));
    throw error;
  }
  return {
    has: (hook) => threads.some((thread) => thread.hooks.has(hook)),
    ask: async (hook, event) => {
      for (const thread of threads) {
        if (!thread.hooks.has(hook)) continue;
        const decision = await thread.ask(hook, event);
        if (decision.kind !== 'allowed') return decision;
      }
      return ALLOWED;
    },
    tell: (hook, event) => {
      for (const thread of threads) if (thread.hooks.has(hook)) void thread.ask(hook, event);
    },
    close: async () => {
      await Promise.all(threads.map((thread) => thread.close()));
    },
  };
}

interface Question {
  readonly hook: HookName;
  readonly askedAt: number;
  readonly settle: (answer: PluginAnswer) => void;
}

class PluginThread {
  name: string;
  hooks: ReadonlySet<HookName> = new Set();
  readonly #file: string;
  readonly #options: PluginHostOptions;
  readonly #logLines: TokenBucket;
  #onFailure: FailurePolicy = ON_FAILURE;
  #worker: Worker | undefined;
  #isReady = false;
  // In the order in which they were asked, which is that of their deadlines.
  readonly #waiting = new Map<number, Question>();
  #nextId = 1;
  #deadline: unknown;
  #pinged: unknown;
  #restart: unknown;
  #loading: unknown;
  #restartMs = RESTART_MS;
  #startedAt = 0;
  #violations = 0;
  #failing = false;
  #ended = false;
  #loaded: { resolve: () => void; reject: (error: Error) => void } | undefined;

  constructor(file: string, options: PluginHostOptions) {
    this.#file = path.resolve(file);
    this.name = path.basename(file);
    this.#options = options;
    this.#logLines = new TokenBucket(options.clock, LOG_LINES);
  }

  /** @throws StartupError */
  async load(): Promise<void> {
    try {
      if (!statSync(this.#file).isFile()) throw new Error('it is not a file');
    } catch (error) {
      throw this.#unusable(reasonOf(error), error);
    }
    try {
      await new Promise<void>((resolve, reject) => {
        this.#loaded = { resolve, reject };
        this.#start();
      });
    } catch (error) {
      throw this.#unusable(error instanceof Error ? error.message : String(error), error);
    } finally {
      this.#loaded = undefined;
    }
  }

  async ask<Hook extends HookName>(hook: Hook, event: HookEvents[Hook]): Promise<Decision> {
    const { clock, observer, log } = this.#options;
    const askedAt = clock.now();
    const answer = await new Promise<PluginAnswer>((settle) => this.#ask(hook, event, { hook, askedAt, settle }));
    const outcome = answer.kind;
    observer.pluginAnswered(this.name, hook, outcome, clock.now() - askedAt);
    if (outcome === 'allowed') {
      this.#failing = false;
      return ALLOWED;
    }
    if (answer.kind === 'rejected') {
      this.#failing = false;
      const { reason, retryAfterMs } = answer;
      return { kind: 'rejected', reason: displayText(reason), retryAfterMs };
    }
    // The first failure is told; the metrics count all.
    if (!this.#failing) log.warn({ plugin: this.name, hook, reason: answer.reason }, 'a plugin has failed');
    this.#failing = true;
    return this.#onFailure[hook] === 'allow' ? ALLOWED : UNDECIDED;
  }

  async close(): Promise<void> {
    if (this.hooks.has('shutdown')) await this.ask('shutdown', {});
    await this.end();
  }

  async end(): Promise<void> {
    const { clock } = this.#options;
    this.#ended = true;
    for (const timer of [this.#deadline, this.#pinged, this.#restart, this.#loading]) clock.clearTimer(timer);
    this.#failAll('the server stops');
    await this.#worker?.terminate();
  }

  #ask(hook: HookName, event: object, question: Question): void {
    if (this.#worker === undefined || !this.#isReady)
      question.settle({ kind: 'failed', reason: 'its thread is not running' });
    else if (this.#waiting.size >= WAITING_MAX) question.settle({ kind: 'failed', reason: 'too much waits for it' });
    else {
      const id = this.#nextId++;
      this.#waiting.set(id, question);
      this.#say({ kind: 'ask', id, hook, event });
      if (this.#waiting.size === 1) this.#schedule(question);
    }
  }

  #say(message: ToPlugin): void {
    this.#worker?.postMessage(message);
  }

  // One timer for all: for the question that has waited longest.
  #schedule({ askedAt }: Question): void {
    const { clock, deadlineMs } = this.#options;
    clock.clearTimer(this.#deadline);
    this.#deadline = clock.setTimer(() => this.#late(), Math.max(1, askedAt + deadlineMs - clock.now()));
  }

  #late(): void {
    const { clock, deadlineMs } = this.#options;
    const now = clock.now();
    for (const [id, question] of this.#waiting) {
      if (question.askedAt + deadlineMs > now) {
        this.#schedule(question);
        break;
      }
      this.#waiting.delete(id);
      question.settle({ kind: 'failed', reason: `no verdict within ${deadlineMs} ms` });
    }
    // Only this question, or the whole thread?
    if (this.#pinged !== undefined || this.#worker === undefined) return;
    const asked = this.#worker;
    this.#say({ kind: 'ping' });
    this.#pinged = clock.setTimer(() => {
      this.#pinged = undefined;
      if (this.#worker === asked) this.#stopThread('it blocks its thread');
    }, deadlineMs);
  }

  #start(): void {
    const { origin, version, environment, clock } = this.#options;
    const ours = Object.entries(environment).filter(
      (entry): entry is [string, string] => entry[0].startsWith('QPC_PLUGIN_') && entry[1] !== undefined,
    );
    const workerData: PluginWorkerData = {
      url: pathToFileURL(this.#file).href,
      origin,
      version,
      environment: Object.fromEntries(ours),
    };
    // Built files lie beside each other like the sources; only the ending differs.
    const ending = import.meta.url.slice(import.meta.url.lastIndexOf('.'));
    const url = new URL(THREAD.href.replace(/\.ts$/, ending));
    const worker = new Worker(url, {
      workerData,
      name: `plugin ${this.name}`,
      env: workerData.environment,
      execArgv: [],
      resourceLimits: { maxOldGenerationSizeMb: MEMORY_MIB },
      // Standard output belongs to the program, and a machine may read it: what a plugin prints goes into the log.
      stdout: true,
      stderr: true,
    });
    this.#worker = worker;
    this.#isReady = false;
    this.#violations = 0;
    this.#startedAt = clock.now();
    for (const stream of [worker.stdout, worker.stderr]) {
      stream.on('data', (chunk: Buffer) => this.#print(chunk));
    }
    worker.on('message', (message: unknown) => {
      if (this.#worker !== worker) return;
      try {
        this.#hear(message as FromPlugin);
      } catch {
        this.#violated();
      }
    });
    clock.clearTimer(this.#loading);
    this.#loading = clock.setTimer(() => {
      if (this.#worker === worker && !this.#isReady) this.#stopThread(`it was not ready within ${LOAD_MS} ms`);
    }, LOAD_MS);
    worker.on('messageerror', () => this.#violated());
    worker.on('error', (error) => this.#gone(worker, error instanceof Error ? error.message : 'its thread has failed'));
    worker.on('exit', () => this.#gone(worker, 'its thread has ended'));
  }

  #hear(message: FromPlugin): void {
    const { clock, log } = this.#options;
    // A plugin can reach its port and say anything there.
    switch ((message as Partial<FromPlugin> | null)?.kind) {
      case 'answer': {
        const { id, answer } = message as FromPlugin & { kind: 'answer' };
        const question = this.#waiting.get(id);
        // Late ones are normal, as far as they were asked.
        if (question === undefined || !isAnswer(answer)) {
          if (!(id < this.#nextId)) this.#violated();
          return;
        }
        this.#waiting.delete(id);
        question.settle(answer);
        const [next] = this.#waiting.values();
        if (next === undefined) {
          clock.clearTimer(this.#deadline);
          this.#deadline = undefined;
        }
        return;
      }
      case 'pong':
        clock.clearTimer(this.#pinged);
        this.#pinged = undefined;
        return;
      case 'log': {
        const { message: words, fields } = message as FromPlugin & { kind: 'log' };
        if (this.#logLines.take() > 0) return;
        log.info({ ...fields, plugin: this.name }, displayText(String(words).slice(0, WORDS_MAX)));
        return;
      }
      case 'ready': {
        const { name, hooks, onFailure } = message as FromPlugin & { kind: 'ready' };
        if (this.#isReady) return this.#violated();
        this.#isReady = true;
        // What it is, it said when the server started.
        if (this.#loaded === undefined) return;
        this.name = name;
        this.hooks = new Set(hooks);
        this.#onFailure = { ...ON_FAILURE, ...onFailure };
        this.#loaded.resolve();
        log.info({ plugin: name, hooks: hooks.join(' ') }, 'plugin loaded');
        return;
      }
      case 'unusable': {
        const { reason } = message as FromPlugin & { kind: 'unusable' };
        if (this.#loaded === undefined) this.#stopThread(String(reason));
        else this.#loaded.reject(new Error(String(reason)));
        return;
      }
      default:
        this.#violated();
    }
  }

  #print(chunk: Buffer): void {
    if (this.#logLines.take() > 0) return;
    const text = chunk.subarray(0, PRINTED_BYTES_MAX).toString().trim();
    this.#options.log.info({ plugin: this.name }, displayText(text.replaceAll('\n', ' | ')));
  }

  #violated(): void {
    if (++this.#violations === VIOLATIONS_MAX) this.#stopThread('it says what nobody asked');
  }

  #stopThread(reason: string): void {
    const worker = this.#worker;
    if (worker === undefined) return;
    this.#gone(worker, reason);
    void worker.terminate();
  }

  /** Whatever it was asked has failed; it is started anew, later each time it does not last. */
  #gone(worker: Worker, reason: string): void {
    if (this.#worker !== worker) return;
    const { clock, log } = this.#options;
    this.#worker = undefined;
    this.#failAll(reason);
    clock.clearTimer(this.#pinged);
    this.#pinged = undefined;
    if (this.#loaded !== undefined) {
      this.#loaded.reject(new Error(reason));
      return;
    }
    if (this.#ended) return;
    if (clock.now() - this.#startedAt > RESTART_MS_MAX) this.#restartMs = RESTART_MS;
    log.error({ plugin: this.name, reason, restartMs: this.#restartMs }, 'a plugin was stopped');
    this.#restart = clock.setTimer(() => {
      if (!this.#ended) this.#start();
    }, this.#restartMs);
    this.#restartMs = Math.min(RESTART_MS_MAX, this.#restartMs * 2);
  }

  #failAll(reason: string): void {
    this.#options.clock.clearTimer(this.#deadline);
    this.#deadline = undefined;
    const questions = [...this.#waiting.values()];
    this.#waiting.clear();
    for (const { settle } of questions) settle({ kind: 'failed', reason });
  }

  #unusable(reason: string, cause: unknown): StartupError {
    const text = displayText(reason).replace(/\.$/, '');
    return new StartupError('config', `the plugin ${this.#file} cannot be used: ${text}`, 'See docs/plugins.md.', {
      cause,
    });
  }
}

const THREAD = new URL('./plugin-worker.node.ts', import.meta.url);

// Its thread has checked that before; but a plugin can say things on the port itself.
function isAnswer(answer: unknown): answer is PluginAnswer {
  const { kind, reason, retryAfterMs } = (answer ?? {}) as { kind?: unknown; reason?: unknown; retryAfterMs?: unknown };
  if (kind === 'allowed') return true;
  if (typeof reason !== 'string') return false;
  if (kind === 'failed') return reason.length <= WORDS_MAX;
  const isTime =
    retryAfterMs === undefined ||
    (typeof retryAfterMs === 'number' && retryAfterMs >= 0 && retryAfterMs <= RETRY_MS_MAX);
  return kind === 'rejected' && reason.length <= REASON_CHARACTERS_MAX && isTime;
}
