// A client that misbehaves, in a process of its own: the engine counts what is under way per process.
//   node flooder.node.ts MODE PORT, trust anchor (PEM) on standard input
// Prints `closed CODE` when the server ends the connection.
import { readFileSync } from 'node:fs';
import { encodeRequestHeader } from '../framing.ts';
import { EventType, loadNative } from '../quic-engine.node.ts';

/** Method numbers the server in the tests serves. */
export const FLOODED = { echo: 1, large: 3, subscribe: 8 } as const;

/**
 * `small`: as many small calls as fit; `unread`: calls with large answers that are never read;
 * `events`: subscribes and never reads; `trickle`: frames that grow by one byte at a time on 60 streams.
 */
export type FlooderMode = 'small' | 'unread' | 'events' | 'trickle';

if (process.argv[1] === import.meta.filename) flood();

function flood(): void {
  const [, , mode, port] = process.argv;
  const reads = mode !== 'unread' && mode !== 'events';
  const { NativeQuicClient } = loadNative();
  const client = new NativeQuicClient(
    { alpn: ['qpc'], runtimeMode: 'portable', ca: readFileSync(0) },
    (_error, events) => {
      for (const event of events) {
        if (event.eventType === EventType.handshakeDone) attack();
        if (event.eventType === EventType.sessionClosed) {
          process.stdout.write(`closed ${event.meta?.errorCode}\n`, () => process.exit());
        }
      }
      // What is not acknowledged makes the engine stop reading.
      if (reads) client.ackEventBatch(events.length);
    },
  );
  client.connect(`127.0.0.1:${port}`, 'localhost');

  let id = 0;
  const request = (method: number, payload: Uint8Array): Buffer => {
    id += 1;
    return Buffer.concat([encodeRequestHeader(new Uint8Array(10), method, id >>> 0, payload.length), payload]);
  };
  const forever = (step: () => void): void => {
    const again = (): void => {
      step();
      setImmediate(again);
    };
    again();
  };
  const sendAll = (stream: number, bytes: Uint8Array): void => {
    let sent = 0;
    forever(() => {
      const { status, written } = client.streamSend(stream, bytes.subarray(sent), false);
      if (status === 0) sent = (sent + written) % bytes.length;
    });
  };
  const attack = (): void => {
    const stream = client.openStream();
    if (mode === 'small') {
      const payload = Buffer.from('0a0141', 'hex');
      sendAll(stream, Buffer.concat(Array.from({ length: 500 }, () => request(FLOODED.echo, payload))));
    } else if (mode === 'unread') {
      const payload = Buffer.concat([Buffer.from('0aa09c01', 'hex'), new Uint8Array(20_000)]);
      sendAll(stream, Buffer.concat(Array.from({ length: 20 }, () => request(FLOODED.echo, payload))));
    } else if (mode === 'events') {
      client.streamSend(stream, request(FLOODED.subscribe, new Uint8Array(0)), false);
    } else {
      const streams = [stream, ...Array.from({ length: 59 }, () => client.openStream())];
      const header = encodeRequestHeader(new Uint8Array(10), FLOODED.large, 1, 130_000);
      for (const one of streams) client.streamSend(one, header, false);
      const byte = new Uint8Array(1);
      forever(() => {
        for (const one of streams) client.streamSend(one, byte, false);
      });
    }
  };
}
