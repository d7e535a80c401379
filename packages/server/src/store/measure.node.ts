/**
 * What the store can do alone, as the limit the server is measured against in the same run (DESIGN section 9): the same
 * group commit, the same rows, no network. Durable figures mean little without the disk's own, so that comes along.
 */
import { createHash } from 'node:crypto';
import { closeSync, fdatasyncSync, mkdtempSync, openSync, rmSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { openSqliteStore } from './sqlite.node.ts';
import type { Address, Store } from './store.ts';

interface Percentiles {
  readonly p50Ms: number;
  readonly p99Ms: number;
}

export interface StoreMeasurement {
  /** Answered enqueues per second, each of one payload to one device and each on disk. */
  readonly enqueuesPerSecond: number;
  readonly enqueue: Percentiles;
  /** Of the thread that calls the store. */
  readonly loopDelay: Percentiles;
  /** One message to every device of a large roster, until it is on disk. */
  readonly fanOut: Percentiles & { readonly devices: number };
  /** Of the disk under the store, for 4 KiB appended. */
  readonly fdatasync: Percentiles;
}

export interface MeasureOptions {
  /** Encrypts the store when given, 32 bytes. */
  readonly key?: Uint8Array | undefined;
  readonly writers?: number | undefined;
  readonly payloadBytes?: number | undefined;
  readonly seconds?: number | undefined;
  readonly fanOutDevices?: number | undefined;
  readonly fanOutMessages?: number | undefined;
  /** Where the files go; they are removed afterwards. */
  readonly folder?: string | undefined;
}

/** Share of the time that is spent before anything counts: a server has been running for longer. */
const WARM_UP = 0.3;

/** Measures a store of its own in a temporary folder. */
export async function measureSqliteStore(options: MeasureOptions = {}): Promise<StoreMeasurement> {
  const { key, writers = 64, payloadBytes = 1024, seconds = 5, fanOutDevices = 1000, fanOutMessages = 20 } = options;
  const folder = mkdtempSync(join(options.folder ?? tmpdir(), 'qpc-measure-'));
  try {
    const limits = { inboxEnvelopes: 1e9, inboxBytes: 1e15, devicesPerAccount: fanOutDevices };
    const store = await openSqliteStore({ path: join(folder, 'store.db'), key, limits });
    try {
      const devices = await registerDevices(store, Math.max(writers, fanOutDevices));
      await enqueueFrom(store, devices.slice(0, writers), payloadBytes, seconds * WARM_UP);
      const load = await enqueueFrom(store, devices.slice(0, writers), payloadBytes, seconds);
      const fanOut = await fanOutTo(store, devices.slice(0, fanOutDevices), payloadBytes, fanOutMessages);
      return { ...load, fanOut, fdatasync: measureFdatasync(folder) };
    } finally {
      await store.close();
    }
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

let counter = 0;

function unique(length: number): Uint8Array {
  return sha256(new Uint8Array(new Float64Array([++counter]).buffer)).subarray(0, length);
}

/** Ordered by time, as the ids of real messages are (UUIDv7). */
function newMessageId(): Uint8Array {
  const id = unique(16);
  new DataView(id.buffer, id.byteOffset).setBigUint64(0, (BigInt(Date.now()) << 16n) | BigInt(counter & 0xffff));
  return id;
}

function sha256(data: Uint8Array): Uint8Array {
  return createHash('sha256').update(data).digest();
}

/** Devices of one account: the cheapest way to many. */
async function registerDevices(store: Store, count: number): Promise<Address[]> {
  const identityKey = unique(32);
  const newDevice = () => ({ deviceId: unique(16), deviceKey: unique(32), certificate: unique(32), name: 'measured' });
  const firstDevice = newDevice();
  const nowMs = Date.now();
  const opaqueRecord = unique(32);
  const registrationSignature = unique(32);
  const username = 'measured';
  await store.createAccount({ username, identityKey, opaqueRecord, registrationSignature, firstDevice, nowMs });
  const others = Array.from({ length: count - 1 }, newDevice);
  await Promise.all(others.map((device) => store.registerDevice({ identityKey, device, nowMs })));
  return [firstDevice, ...others].map(({ deviceId }) => ({ identityKey, deviceId }));
}

async function enqueueFrom(store: Store, devices: readonly Address[], payloadBytes: number, seconds: number) {
  const latencies: number[] = [];
  const delay = monitorEventLoopDelay({ resolution: 1 });
  const started = performance.now();
  const until = started + seconds * 1000;
  delay.enable();
  await Promise.all(
    devices.map(async (device, writer) => {
      const data = new Uint8Array(payloadBytes).fill(writer);
      while (performance.now() < until) {
        const sent = performance.now();
        const outcome = await store.enqueue(
          {
            target: { kind: 'recipients', recipients: [device] },
            messageId: newMessageId(),
            payload: { data, hash: sha256(data) },
            nowMs: Date.now(),
          },
          { fairnessKey: writer },
        );
        if (outcome.kind !== 'enqueued') throw new Error(`the store answered ${outcome.kind}`);
        latencies.push(performance.now() - sent);
      }
    }),
  );
  delay.disable();
  const elapsed = (performance.now() - started) / 1000;
  return {
    enqueuesPerSecond: latencies.length / elapsed,
    enqueue: percentiles(latencies),
    // The histogram counts its own timer's millisecond as delay.
    loopDelay: { p50Ms: delay.percentile(50) / 1e6 - 1, p99Ms: delay.percentile(99) / 1e6 - 1 },
  };
}

async function fanOutTo(store: Store, devices: readonly Address[], payloadBytes: number, messages: number) {
  const [creator] = devices;
  if (creator === undefined) throw new RangeError('a fan-out needs a device');
  const channelId = unique(16);
  const data = new Uint8Array(payloadBytes);
  const payload = { data, hash: sha256(data) };
  const nowMs = Date.now();
  await store.createGroup({ channelId, creator, nowMs });
  await store.submitCommit({
    channelId,
    submitter: creator,
    after: 0,
    messageId: newMessageId(),
    payload,
    welcomes: [],
    rosterAdd: devices,
    rosterRemove: [],
    adminsAdd: [],
    adminsRemove: [],
    nowMs,
  });
  const latencies: number[] = [];
  for (let i = 0; i < messages; i++) {
    const sent = performance.now();
    const target = { kind: 'roster', sender: creator } as const;
    const outcome = await store.enqueue({ target, channelId, messageId: newMessageId(), payload, nowMs: Date.now() });
    if (outcome.kind !== 'enqueued' || outcome.wake.length !== devices.length)
      throw new Error('the fan-out fell short');
    latencies.push(performance.now() - sent);
  }
  return { ...percentiles(latencies), devices: devices.length };
}

function measureFdatasync(folder: string): Percentiles {
  const fd = openSync(join(folder, 'fdatasync'), 'w');
  const block = new Uint8Array(4096);
  const latencies: number[] = [];
  try {
    for (let i = 0; i < 200; i++) {
      writeSync(fd, block);
      const started = performance.now();
      fdatasyncSync(fd);
      latencies.push(performance.now() - started);
    }
  } finally {
    closeSync(fd);
  }
  return percentiles(latencies);
}

function percentiles(values: number[]): Percentiles {
  values.sort((a, b) => a - b);
  const at = (share: number) => values[Math.min(values.length - 1, Math.floor(values.length * share))] ?? 0;
  return { p50Ms: at(0.5), p99Ms: at(0.99) };
}
