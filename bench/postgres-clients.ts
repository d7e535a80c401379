// The clients of the PostgreSQL baseline, in a process of their own as ours are, and at the same low priority.
import { createHash, randomBytes } from 'node:crypto';
import { constants, setPriority } from 'node:os';
import { HelperProcess, obeyOrders } from './helper-process.ts';
import { PostgresClient } from './postgres.ts';

type Order =
  | { readonly kind: 'connect'; readonly folder: string; readonly clients: number }
  | { readonly kind: 'enqueue'; readonly forMs: number; readonly payloadBytes: number };

/** The benchmark's end. */
export class PostgresClientsProcess {
  readonly #process = new HelperProcess<Order>(import.meta.filename);

  async connect(folder: string, clients: number): Promise<void> {
    await this.#process.ask({ kind: 'connect', folder, clients });
  }

  /** Every client sends to its own inbox, one message after the other; messages per second. */
  async enqueue(forMs: number, payloadBytes: number): Promise<number> {
    return (await this.#process.ask({ kind: 'enqueue', forMs, payloadBytes })) as number;
  }

  close(): Promise<void> {
    return this.#process.close();
  }
}

const clients: { readonly client: PostgresClient; readonly identityKey: Uint8Array; readonly deviceId: Uint8Array }[] =
  [];

async function connectAll(folder: string, count: number): Promise<void> {
  for (let id = 1; id <= count; id += 1) {
    const client = await PostgresClient.connect(folder);
    const [identityKey, deviceId] = [randomBytes(32), randomBytes(16)];
    await client.register(id, identityKey, deviceId);
    clients.push({ client, identityKey, deviceId });
  }
}

async function enqueueFromAll(forMs: number, payloadBytes: number): Promise<number> {
  const started = performance.now();
  let messages = 0;
  await Promise.all(
    clients.map(async ({ client, identityKey, deviceId }) => {
      const data = randomBytes(payloadBytes);
      const messageId = randomBytes(16);
      while (performance.now() < started + forMs) {
        const nowMs = Date.now();
        messages += 1;
        // Ordered by time, as a UUIDv7 is.
        messageId.writeBigUInt64BE((BigInt(nowMs) << 16n) | BigInt(messages & 0xffff));
        const hash = createHash('sha256').update(data).digest();
        await client.enqueue({ identityKey, deviceId, messageId, nowMs, data, hash });
      }
    }),
  );
  return messages / ((performance.now() - started) / 1000);
}

if (process.argv[1] === import.meta.filename) {
  setPriority(constants.priority.PRIORITY_BELOW_NORMAL);
  obeyOrders(
    (order: Order): Promise<unknown> =>
      order.kind === 'connect'
        ? connectAll(order.folder, order.clients)
        : enqueueFromAll(order.forMs, order.payloadBytes),
    async () => {
      await Promise.all(clients.map(({ client }) => client.end()));
    },
  );
}
