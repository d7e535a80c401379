// Clients that do nothing but press on the server, in a process of their own that is driven by messages from the benchmark.
import { randomBytes } from 'node:crypto';
import { constants, setPriority } from 'node:os';
import { fromBinary } from '@bufbuild/protobuf';
import { EnqueueResponseSchema } from '@quicprochat/proto';
import { methods } from '@quicprochat/transport';
import { HelperProcess, obeyOrders } from './helper-process.ts';
import { type EngineAddress, LoadConnection, encodeRequest } from './load-connection.ts';
import type { ServerAddress } from './server-process.ts';
import type { SeededDevice } from './server-seed.ts';

export interface Load {
  /** Answered as queued. */
  readonly enqueues: number;
  readonly elapsedMs: number;
  readonly latenciesMs: readonly number[];
  /** CPU of this process for one of them. */
  readonly cpuUs: number;
}

/** How the messages of a flood were answered. */
export interface Flood {
  readonly stored: number;
  /** The recipient's inbox was full. */
  readonly full: number;
  /** With a status other than ok. */
  readonly refused: number;
}

type Order =
  | { readonly kind: 'connectBare'; readonly server: EngineAddress; readonly devices: readonly SeededDevice[] }
  | { readonly kind: 'connect'; readonly server: ServerAddress; readonly devices: readonly SeededDevice[] }
  | { readonly kind: 'enqueue'; readonly forMs: number; readonly payloadBytes: number }
  | { readonly kind: 'cycles'; readonly cycles: number; readonly payloadBytes: number }
  | { readonly kind: 'trickle'; readonly forMs: number; readonly everyMs: number; readonly payloadBytes: number }
  | { readonly kind: 'flood'; readonly inFlight: number; readonly payloadBytes: number }
  | { readonly kind: 'endFlood' };

/** The benchmark's end. */
export class LoadProcess {
  readonly #process = new HelperProcess<Order>(import.meta.filename);

  /** Connects and resumes the session of each device, besides those connected already. */
  async connect(server: ServerAddress, devices: readonly SeededDevice[]): Promise<void> {
    await this.#process.ask({ kind: 'connect', server, devices });
  }

  /** Connects that many to an engine that knows no sessions. */
  async connectBare(server: EngineAddress, devices: readonly SeededDevice[]): Promise<void> {
    await this.#process.ask({ kind: 'connectBare', server, devices });
  }

  /** Every client sends to its own inbox, one message after the other. */
  async enqueue(forMs: number, payloadBytes: number): Promise<Load> {
    return (await this.#process.ask({ kind: 'enqueue', forMs, payloadBytes })) as Load;
  }

  /** So many messages, each stored in the client's own inbox and then acknowledged away; milliseconds. */
  async cycles(cycles: number, payloadBytes: number): Promise<number> {
    return (await this.#process.ask({ kind: 'cycles', cycles, payloadBytes })) as number;
  }

  /** Every client sends a message now and then; milliseconds until each was answered. */
  async trickle(forMs: number, everyMs: number, payloadBytes: number): Promise<readonly number[]> {
    return (await this.#process.ask({ kind: 'trickle', forMs, everyMs, payloadBytes })) as readonly number[];
  }

  /** Every client begins to send as fast as it can, so many messages at once. */
  async flood(inFlight: number, payloadBytes: number): Promise<void> {
    await this.#process.ask({ kind: 'flood', inFlight, payloadBytes });
  }

  async endFlood(): Promise<Flood> {
    return (await this.#process.ask({ kind: 'endFlood' })) as Flood;
  }

  close(): Promise<void> {
    return this.#process.close();
  }
}

const clients: { readonly connection: LoadConnection; readonly device: SeededDevice }[] = [];
const AT_ONCE = 16;
/** Of the answers one in so many is decoded; of the others the status is looked at, and what is stored is counted. */
const DECODED_EVERY = 64;

async function connectAll(
  devices: readonly SeededDevice[],
  connect: (device: SeededDevice) => Promise<LoadConnection>,
): Promise<void> {
  const waiting = [...devices];
  const worker = async (): Promise<void> => {
    for (let device = waiting.shift(); device !== undefined; device = waiting.shift()) {
      clients.push({ connection: await connect(device), device });
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, worker));
}

async function enqueueFromAll(forMs: number, payloadBytes: number): Promise<Load> {
  const latenciesMs: number[] = [];
  const cpuBefore = process.cpuUsage();
  const started = performance.now();
  const until = started + forMs;
  await Promise.all(
    clients.map(async ({ connection, device }) => {
      const { frame, renew } = enqueueRequest(device, payloadBytes);
      let sent = 0;
      await connection.repeat(
        1,
        () => {
          renew();
          sent = performance.now();
          return frame;
        },
        (status, payload) => {
          if (status !== 0) throw new Error(`an enqueue was answered with status ${status}`);
          const now = performance.now();
          if (latenciesMs.push(now - sent) % DECODED_EVERY === 1) checkQueued(payload);
          return now < until;
        },
      );
    }),
  );
  const { user, system } = process.cpuUsage(cpuBefore);
  const enqueues = latenciesMs.length;
  return { enqueues, elapsedMs: performance.now() - started, latenciesMs, cpuUs: (user + system) / enqueues };
}

/** At once per client in `cycles`: a connection's share of one transaction. */
const CYCLES_IN_FLIGHT = 16;

async function cycleAll(cycles: number, payloadBytes: number): Promise<number> {
  const started = performance.now();
  let begun = 0;
  await Promise.all(
    clients.map(({ connection, device }) => {
      const { frame, renew } = enqueueRequest(device, payloadBytes);
      const { identityKey: recipientKey, deviceId } = device;
      // What is to be sent next on this connection: an Ack for each position answered, then another message.
      const stored: bigint[] = [];
      return connection.repeat(
        Math.min(CYCLES_IN_FLIGHT, Math.max(1, Math.floor(cycles / clients.length))),
        () => {
          const seqUpTo = stored.shift();
          if (seqUpTo !== undefined) return encodeRequest(methods.delivery.ack, { recipientKey, deviceId, seqUpTo });
          begun += 1;
          renew();
          return frame;
        },
        (status, payload) => {
          if (status !== 0) throw new Error(`a call was answered with status ${status}`);
          // An Ack's answer has a few bytes, that of a message a receipt.
          const isAck = payload.length < RECEIPT_BYTES_MIN;
          if (!isAck) stored.push(fromBinary(EnqueueResponseSchema, payload).seq);
          return !isAck || begun < cycles;
        },
      );
    }),
  );
  return performance.now() - started;
}

const RECEIPT_BYTES_MIN = 64;

async function trickleFromAll(forMs: number, everyMs: number, payloadBytes: number): Promise<number[]> {
  const latenciesMs: number[] = [];
  const started = performance.now();
  await Promise.all(
    clients.map(async ({ connection, device }, i) => {
      const { frame, renew } = enqueueRequest(device, payloadBytes);
      // Each at its own moment, and on time however long an answer takes.
      for (let at = started + (everyMs * i) / clients.length; at < started + forMs; at += everyMs) {
        await new Promise((resolve) => setTimeout(resolve, Math.max(0, at - performance.now())));
        const sent = performance.now();
        await connection.repeat(
          1,
          () => {
            renew();
            return frame;
          },
          (status, payload) => {
            if (status !== 0) throw new Error(`an enqueue was answered with status ${status}`);
            latenciesMs.push(performance.now() - sent);
            checkQueued(payload);
            return false;
          },
        );
      }
    }),
  );
  return latenciesMs;
}

let flooding: { readonly done: Promise<unknown>; end(): Flood } | undefined;

function flood(inFlight: number, payloadBytes: number): void {
  const answers = { stored: 0, full: 0, refused: 0 };
  let over = false;
  const done = Promise.all(
    clients.map(({ connection, device }) => {
      const { frame, renew } = enqueueRequest(device, payloadBytes);
      return connection.repeat(
        inFlight,
        () => {
          renew();
          return frame;
        },
        (status, payload) => {
          answers[status === 0 ? outcomeOf(payload) : 'refused'] += 1;
          return !over;
        },
      );
    }),
  );
  flooding = {
    done,
    end: () => {
      over = true;
      return { ...answers };
    },
  };
}

async function endFlood(): Promise<Flood> {
  if (flooding === undefined) throw new Error('there is no flood');
  const answers = flooding.end();
  await flooding.done;
  return answers;
}

function outcomeOf(payload: Uint8Array): 'stored' | 'full' {
  const outcome = fromBinary(EnqueueResponseSchema, payload).results[0]?.outcome.case;
  if (outcome === 'full') return 'full';
  if (outcome === 'queued') return 'stored';
  throw new Error(`answered ${outcome ?? 'nothing'} instead of queued or full`);
}

function checkQueued(payload: Uint8Array): void {
  const { results, deliveryProof } = fromBinary(EnqueueResponseSchema, payload);
  if (results.length === 1 && results[0]?.outcome.case === 'queued' && deliveryProof.length > 0) return;
  throw new Error(`answered ${results[0]?.outcome.case ?? 'nothing'} instead of queued`);
}

let messages = 0;

/** A request to store an envelope in the device's own inbox, and a function that gives it another message id. */
function enqueueRequest(
  { identityKey, deviceId }: SeededDevice,
  payloadBytes: number,
): { frame: Uint8Array; renew: () => void } {
  const payload = new Uint8Array(randomBytes(payloadBytes));
  // Looks like an envelope of type 03 to the server, which sees no more than that.
  payload[0] = 3;
  const messageId = new Uint8Array(randomBytes(16));
  const frame = encodeRequest(methods.delivery.enqueue, { recipientKey: identityKey, deviceId, payload, messageId });
  const at = Buffer.from(frame.buffer, frame.byteOffset, frame.length).indexOf(messageId);
  const view = new DataView(frame.buffer, frame.byteOffset + at, 16);
  return {
    frame,
    // Ordered by time, as a UUIDv7 is; the rest of it stays this client's own.
    renew: () => {
      messages += 1;
      view.setBigUint64(0, (BigInt(Date.now()) << 16n) | 0x7000n | BigInt(messages & 0xfff));
      view.setUint32(8, messages);
    },
  };
}

async function obey(order: Order): Promise<unknown> {
  switch (order.kind) {
    case 'connect':
      return connectAll(order.devices, (device) => LoadConnection.connect(order.server, device));
    case 'connectBare':
      return connectAll(order.devices, () => LoadConnection.connectBare(order.server));
    case 'enqueue':
      return enqueueFromAll(order.forMs, order.payloadBytes);
    case 'cycles':
      return cycleAll(order.cycles, order.payloadBytes);
    case 'trickle':
      return trickleFromAll(order.forMs, order.everyMs, order.payloadBytes);
    case 'flood':
      return flood(order.inFlight, order.payloadBytes);
    case 'endFlood':
      return endFlood();
  }
}

if (process.argv[1] === import.meta.filename) {
  // Real clients compete with the server for nothing; these stand back.
  setPriority(constants.priority.PRIORITY_BELOW_NORMAL);
  obeyOrders(obey, () => {
    for (const { connection } of clients) void connection.close();
  });
}
