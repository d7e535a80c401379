// One person with the SDK, in a process of their own.
import { type Client, type ClientEvent, openClient } from '@quicprochat/client/node';
import { HelperProcess, obeyOrders } from './helper-process.ts';
import type { ServerAddress } from './server-process.ts';

type Order =
  | { readonly kind: 'register'; readonly name: string; readonly profileDir: string; readonly server: ServerAddress }
  | { readonly kind: 'openDirect'; readonly with: string }
  | { readonly kind: 'createGroup'; readonly name: string; readonly invite: readonly string[] }
  | { readonly kind: 'awaitConversation'; readonly id: string }
  | { readonly kind: 'send'; readonly conversationId: string; readonly texts: readonly string[] }
  | { readonly kind: 'receive'; readonly texts: readonly string[] }
  | { readonly kind: 'ping' };

/** The benchmark's end. Times are of the machine's monotonic clock, which all processes share. */
export class Person {
  readonly #process = new HelperProcess<Order>(import.meta.filename);

  async register(name: string, profileDir: string, server: ServerAddress): Promise<void> {
    await this.#process.ask({ kind: 'register', name, profileDir, server });
  }

  /** The conversation's id. */
  async openDirect(other: string): Promise<string> {
    return (await this.#process.ask({ kind: 'openDirect', with: other })) as string;
  }

  /** The group's id, once everyone was added. */
  async createGroup(name: string, invite: readonly string[]): Promise<string> {
    return (await this.#process.ask({ kind: 'createGroup', name, invite })) as string;
  }

  /** Resolves when this person is in the conversation. */
  async awaitConversation(id: string): Promise<void> {
    await this.#process.ask({ kind: 'awaitConversation', id });
  }

  /** Sends as fast as it can, and when each was handed to the SDK, in nanoseconds. */
  async send(conversationId: string, texts: readonly string[]): Promise<readonly bigint[]> {
    return (await this.#process.ask({ kind: 'send', conversationId, texts })) as readonly bigint[];
  }

  /** When each of these was decrypted and stored, in nanoseconds. Fails when they come in another order, or twice. */
  async receive(texts: readonly string[]): Promise<readonly bigint[]> {
    return (await this.#process.ask({ kind: 'receive', texts })) as readonly bigint[];
  }

  /** Round trip to the server and back in milliseconds. */
  async ping(): Promise<number> {
    return (await this.#process.ask({ kind: 'ping' })) as number;
  }

  close(): Promise<void> {
    return this.#process.close();
  }
}

const EVENT_MS_MAX = 30_000;

let client: Client | undefined;
/** Arrived and not asked for yet. */
const arrived: { readonly text: string; readonly at: bigint }[] = [];
/** Replaced at every event. */
let changed = Promise.withResolvers<void>();

function connected(): Client {
  if (client === undefined) throw new Error('register first');
  return client;
}

function heard(event: ClientEvent): void {
  if (event.type === 'message' && !event.message.own) {
    arrived.push({ text: event.message.text, at: process.hrtime.bigint() });
  }
  changed.resolve();
  changed = Promise.withResolvers();
}

/** Asks again after every event until there is an answer. */
async function eventually<T>(answer: () => T | undefined | Promise<T | undefined>): Promise<T> {
  const late = Promise.withResolvers<never>();
  const timer = setTimeout(() => late.reject(new Error('nothing came')), EVENT_MS_MAX);
  try {
    for (;;) {
      const next = changed.promise;
      const found = await answer();
      if (found !== undefined) return found;
      await Promise.race([next, late.promise]);
    }
  } finally {
    clearTimeout(timer);
  }
}

async function register(order: Extract<Order, { kind: 'register' }>): Promise<void> {
  const { host, port, caCertPath } = order.server;
  client = await openClient({ profileDir: order.profileDir, server: `${host}:${port}`, caCert: caCertPath });
  client.on(heard);
  await client.connect();
  await client.register(order.name, `password of ${order.name}`);
}

async function createGroup(name: string, invite: readonly string[]): Promise<string> {
  const { id } = await connected().createGroup(name);
  await connected().invite(id, invite);
  await connected().flush({ conversationId: id });
  return id;
}

async function awaitConversation(id: string): Promise<void> {
  await eventually(async () => {
    const all = await connected().conversations();
    return all.find((conversation) => conversation.id === id);
  });
}

async function send(conversationId: string, texts: readonly string[]): Promise<bigint[]> {
  const times: bigint[] = [];
  for (const text of texts) {
    times.push(process.hrtime.bigint());
    await connected().send(conversationId, text);
  }
  return times;
}

async function receive(texts: readonly string[]): Promise<bigint[]> {
  const times: bigint[] = [];
  for (const text of texts) {
    const message = await eventually(() => arrived.shift());
    if (message.text !== text) throw new Error(`received "${message.text}" where "${text}" was sent`);
    times.push(message.at);
  }
  return times;
}

async function obey(order: Order): Promise<unknown> {
  switch (order.kind) {
    case 'register':
      return register(order);
    case 'openDirect':
      return (await connected().openDirect(order.with)).id;
    case 'createGroup':
      return createGroup(order.name, order.invite);
    case 'awaitConversation':
      return awaitConversation(order.id);
    case 'send':
      return send(order.conversationId, order.texts);
    case 'receive':
      return receive(order.texts);
    case 'ping':
      return connected().ping();
  }
}

if (process.argv[1] === import.meta.filename) obeyOrders(obey, () => client?.close());
