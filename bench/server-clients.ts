// Many clients in a process of their own, driven by messages from the benchmark: transport and methods, without the SDK.
import { randomBytes } from 'node:crypto';
import { constants, setPriority } from 'node:os';
import { signResumeProof } from '@quicprochat/core';
import { nodeCrypto } from '@quicprochat/crypto/node';
import { RpcClient, methods } from '@quicprochat/transport';
import { connectQuic } from '@quicprochat/transport/quic';
import { HelperProcess, obeyOrders } from './helper-process.ts';
import type { ServerAddress } from './server-process.ts';
import type { SeededDevice } from './server-seed.ts';

export interface WakeUps {
  readonly wokenMs: readonly number[];
  readonly sentMs: readonly number[];
}

type Order =
  | { readonly kind: 'connect'; readonly server: ServerAddress; readonly devices: readonly SeededDevice[] }
  | { readonly kind: 'empty' }
  | { readonly kind: 'wakeUps'; readonly waiting: number; readonly messages: number }
  | { readonly kind: 'fanOut'; readonly channelId: Uint8Array; readonly devices: number; readonly messages: number };

/** The benchmark's end. */
export class ClientsProcess {
  readonly #process = new HelperProcess<Order>(import.meta.filename);

  /** Connects and resumes the session of each device, besides those connected already. */
  async connect(server: ServerAddress, devices: readonly SeededDevice[]): Promise<void> {
    await this.#process.ask({ kind: 'connect', server, devices });
  }

  /** The first client sends to a group; milliseconds until each message is on disk for all. */
  async fanOut(channelId: Uint8Array, devices: number, messages: number): Promise<readonly number[]> {
    return (await this.#process.ask({ kind: 'fanOut', channelId, devices, messages })) as readonly number[];
  }

  /** Acknowledges away what is in the inboxes of all clients. */
  async empty(): Promise<void> {
    await this.#process.ask({ kind: 'empty' });
  }

  /**
   * All clients but the first wait in so many FetchWait calls each; the first sends to one after the other. Milliseconds
   * from sending to each answer of a waiting call, and of the sending alone.
   */
  async wakeUps(waiting: number, messages: number): Promise<WakeUps> {
    return (await this.#process.ask({ kind: 'wakeUps', waiting, messages })) as WakeUps;
  }

  close(): Promise<void> {
    return this.#process.close();
  }
}

const clients: { readonly rpc: RpcClient; readonly device: SeededDevice }[] = [];
const AT_ONCE = 16;

async function connectAll(server: ServerAddress, devices: readonly SeededDevice[]): Promise<void> {
  const waiting = [...devices];
  const worker = async (): Promise<void> => {
    for (let device = waiting.shift(); device !== undefined; device = waiting.shift()) {
      const { host, port, origin, caCert } = server;
      const rpc = new RpcClient(await connectQuic({ host, port, trustAnchor: caCert }));
      const { nonce } = await rpc.call(methods.auth.getNonce, {});
      const { deviceId, token } = device;
      const terms = { origin, nonce, deviceId, token };
      const deviceSignature = signResumeProof(nodeCrypto, device.devicePrivateKey, terms);
      await rpc.call(methods.auth.resumeSession, { token, deviceId, deviceSignature });
      clients.push({ rpc, device });
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, worker));
}

async function fanOut(channelId: Uint8Array, devices: number, messages: number): Promise<number[]> {
  const [sender] = clients;
  if (sender === undefined) throw new Error('nobody is connected');
  const latenciesMs: number[] = [];
  for (let i = 0; i < messages; i += 1) {
    const sent = performance.now();
    const request = { channelId, payload: groupEnvelope(1024), messageId: newMessageId() };
    const { results } = await sender.rpc.call(methods.delivery.batchEnqueue, request);
    latenciesMs.push(performance.now() - sent);
    const queued = results.filter(({ outcome }) => outcome.case === 'queued').length;
    if (queued !== devices) throw new Error(`queued for ${queued} of ${devices} devices`);
  }
  return latenciesMs;
}

async function emptyInboxes(): Promise<void> {
  await Promise.all(
    clients.map(({ rpc, device: { identityKey: recipientKey, deviceId } }) =>
      rpc.call(methods.delivery.ack, { recipientKey, deviceId, seqUpTo: BigInt(Number.MAX_SAFE_INTEGER) }),
    ),
  );
}

const WAIT_MS = 60_000;
/** Between one message and the next, so that what is measured is a wake-up and not a queue of them. */
const PAUSE_MS = 5;

async function wakeUps(waiting: number, messages: number): Promise<WakeUps> {
  const [sender, ...waiters] = clients;
  if (sender === undefined) throw new Error('nobody is connected');
  const wokenMs: number[] = [];
  const sentMs: number[] = [];
  const over = new AbortController();
  const wait = async ({ rpc, device }: (typeof clients)[number]): Promise<number> => {
    const { identityKey: recipientKey, deviceId } = device;
    const request = { recipientKey, deviceId, timeoutMs: WAIT_MS };
    const { envelopes } = await rpc.call(methods.delivery.fetchWait, request, { signal: over.signal });
    if (envelopes.length !== 1) throw new Error(`woken to ${envelopes.length} envelopes`);
    return performance.now();
  };
  const waits = waiters.map((waiter) => Array.from({ length: waiting }, () => wait(waiter)));
  // A call answers before those that came before it are served: by now all are waiting.
  await Promise.all(waiters.map(({ rpc }) => rpc.call(methods.auth.getNonce, {})));
  for (let i = 0; i < messages; i += 1) {
    const at = i % waiters.length;
    const waiter = waiters[at] as (typeof clients)[number];
    const { identityKey: recipientKey, deviceId } = waiter.device;
    const request = { recipientKey, deviceId, payload: groupEnvelope(1024), messageId: newMessageId() };
    const sent = performance.now();
    const stored = sender.rpc.call(methods.delivery.enqueue, request).then(({ seq }) => {
      sentMs.push(performance.now() - sent);
      return seq;
    });
    for (const woken of await Promise.all(waits[at] as Promise<number>[])) wokenMs.push(woken - sent);
    await waiter.rpc.call(methods.delivery.ack, { recipientKey, deviceId, seqUpTo: await stored });
    waits[at] = Array.from({ length: waiting }, () => wait(waiter));
    await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
  }
  const ends = waits.flat().map((each) => each.catch(() => {}));
  over.abort();
  await Promise.all(ends);
  return { wokenMs, sentMs };
}

/** Looks like an envelope of type 03 to the server, which sees no more than that. */
function groupEnvelope(length: number): Uint8Array {
  const envelope = new Uint8Array(randomBytes(length));
  envelope[0] = 3;
  return envelope;
}

/** Ordered by time, as a UUIDv7 is. */
function newMessageId(): Uint8Array {
  const id = new Uint8Array(randomBytes(16));
  new DataView(id.buffer).setBigUint64(0, (BigInt(Date.now()) << 16n) | BigInt(0x7000 + (id[7] ?? 0)));
  return id;
}

async function obey(order: Order): Promise<unknown> {
  switch (order.kind) {
    case 'connect':
      return connectAll(order.server, order.devices);
    case 'empty':
      return emptyInboxes();
    case 'wakeUps':
      return wakeUps(order.waiting, order.messages);
    case 'fanOut':
      return fanOut(order.channelId, order.devices, order.messages);
  }
}

if (process.argv[1] === import.meta.filename) {
  // Real clients compete with the server for nothing; these stand back.
  setPriority(constants.priority.PRIORITY_BELOW_NORMAL);
  obeyOrders(obey, () => {
    for (const { rpc } of clients) rpc.close();
  });
}
