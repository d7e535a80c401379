// A message's whole way: handed to the SDK, encrypted, stored, sent, stored by the server, pushed, decrypted, stored and
// told to the application. Two people with the SDK and one server, each a process of its own. Three of those steps wait
// for the disk one after the other, so three fdatasyncs are the baseline.
import { closeSync, fdatasyncSync, openSync, writeSync } from 'node:fs';
import path from 'node:path';
import { setTimeout } from 'node:timers/promises';
import { Person } from './end-to-end-client.ts';
import { type BenchOptions, type BenchResult, figure, quantile } from './result.ts';
import { ServerProcess } from './server-process.ts';
import { temporaryFolder } from './temporary-folder.ts';

const TEXT_LENGTH = 100;
const WARM_UP = 20;
/** So that a message meets neither the acknowledgement of the one before (20 ms after it) nor its sender's bookkeeping. */
const INTERVAL_MS = 50;

export async function* endToEndBench({ quick }: BenchOptions): AsyncGenerator<BenchResult> {
  const messages = quick ? 50 : 500;
  const burst = quick ? 50 : 500;
  const { path: folder, remove } = temporaryFolder();
  const server = await ServerProcess.start(path.join(folder, 'server'));
  const alice = new Person();
  const bob = new Person();
  const disk = new Disk(path.join(folder, 'fdatasync'));
  try {
    await alice.register('alice', path.join(folder, 'alice'), server.address);
    await bob.register('bob', path.join(folder, 'bob'), server.address);

    const pings: number[] = [];
    for (let i = 0; i < (quick ? 20 : 200); i += 1) pings.push(await alice.ping());
    yield figure({ name: 'round trip to the server, p50', value: quantile(pings, 0.5), unit: 'ms' });

    const direct = await alice.openDirect('bob');
    const group = await alice.createGroup('bench', ['bob']);
    await bob.awaitConversation(group);
    for (const [kind, conversation] of [
      ['direct', direct],
      ['group', group],
    ] as const) {
      await paced(alice, bob, conversation, WARM_UP, disk);
      const { latenciesMs, diskMs } = await paced(alice, bob, conversation, messages, disk);
      for (const [label, q, atMost] of [
        ['p50', 0.5, 3],
        ['p99', 0.99, 15],
      ] as const) {
        yield figure({
          name: `${kind} message, sent to decrypted, ${label}`,
          value: quantile(latenciesMs, q),
          unit: 'ms',
          baseline: { name: 'three fdatasyncs', value: quantile(diskMs, q) },
          target: { of: 'value', atMost },
        });
      }
      yield figure({
        name: `${kind} messages, ${burst} at once`,
        value: await burstRate(alice, bob, conversation, burst),
        unit: 'messages/s',
      });
    }
  } finally {
    disk.close();
    await Promise.all([alice.close(), bob.close()]);
    await server.stop();
    remove();
  }
}

let counter = 0;

function newText(): string {
  counter += 1;
  return `message ${counter} `.padEnd(TEXT_LENGTH, '.');
}

/** At a steady pace; between two of them the disk is asked what it costs just now. */
async function paced(
  from: Person,
  to: Person,
  conversation: string,
  count: number,
  disk: Disk,
): Promise<{ latenciesMs: number[]; diskMs: number[] }> {
  const latenciesMs: number[] = [];
  const diskMs: number[] = [];
  for (let i = 0; i < count; i += 1) {
    await setTimeout(INTERVAL_MS);
    diskMs.push(disk.syncMs() + disk.syncMs() + disk.syncMs());
    const text = newText();
    const receiving = to.receive([text]);
    const [sent] = await from.send(conversation, [text]);
    const [received] = await receiving;
    if (sent === undefined || received === undefined) throw new Error('a message was lost');
    latenciesMs.push(Number(received - sent) / 1e6);
  }
  return { latenciesMs, diskMs };
}

async function burstRate(from: Person, to: Person, conversation: string, count: number): Promise<number> {
  const texts = Array.from({ length: count }, newText);
  const receiving = to.receive(texts);
  const [first] = await from.send(conversation, texts);
  const last = (await receiving).at(-1);
  if (first === undefined || last === undefined) throw new Error('a message was lost');
  return count / (Number(last - first) / 1e9);
}

class Disk {
  readonly #file: number;
  readonly #block = new Uint8Array(4096);

  constructor(name: string) {
    this.#file = openSync(name, 'w');
  }

  /** Milliseconds to append 4 KiB durably. */
  syncMs(): number {
    writeSync(this.#file, this.#block);
    const started = performance.now();
    fdatasyncSync(this.#file);
    return performance.now() - started;
  }

  close(): void {
    closeSync(this.#file);
  }
}
