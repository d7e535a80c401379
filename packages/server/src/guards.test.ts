// The real server on a real socket: a flood of connections from one network address, its audit log, its plugins.
import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { methods, RpcClient } from '@quicprochat/transport';
import { connectQuic } from '@quicprochat/transport/quic';
import { resolveConfig } from './config.ts';
import { startServer } from './server.node.ts';
import type { RunningServer } from './server.node.ts';
import { TestLog } from './testing/world.node.ts';

const PER_ADDRESS = 4;
const log = new TestLog();
let folder: string;
let server: RunningServer;

function configOf(flags: Record<string, unknown>) {
  const common = { dataDir: path.join(folder, 'data'), listen: '127.0.0.1:0', metricsListen: 'off' };
  const outcome = resolveConfig({ flags: { ...common, ...flags } });
  assert.ok(outcome.kind === 'config', JSON.stringify(outcome));
  return outcome.config;
}

before(async () => {
  folder = mkdtempSync(path.join(tmpdir(), 'qpc-guards-test-'));
  const plugin = [fileURLToPath(new URL('../examples/logging.ts', import.meta.url))];
  server = await startServer(configOf({ connectionsPerAddress: PER_ADDRESS, plugin, shutdownGraceSecs: 1 }), { log });
});
after(async () => {
  await server.close();
  rmSync(folder, { recursive: true, force: true });
});

/** A connection that has been answered, or undefined when it was sent away. */
async function connect(): Promise<RpcClient | undefined> {
  const trustAnchor = readFileSync(server.certificatePath);
  const { host, port } = server;
  try {
    const client = new RpcClient(await connectQuic({ host, port, trustAnchor }));
    await client.call(methods.p2p.health, {});
    return client;
  } catch {
    return undefined;
  }
}

test(
  'THREATS 24: a flood of connections from one address is bounded, and those that are there go on',
  { timeout: 60_000 },
  async () => {
    const open = await Promise.all(Array.from({ length: PER_ADDRESS }, connect));
    assert.ok(open.every((client) => client !== undefined));
    const flood = await Promise.all(Array.from({ length: 20 }, connect));
    assert.ok(
      flood.every((client) => client === undefined),
      'none of them is answered',
    );
    for (const client of open) assert.equal((await client.call(methods.p2p.health, {})).origin, server.origin);
    open[0]?.close();
    // The place is free once the server has heard of it.
    let next = await connect();
    while (next === undefined) next = await connect();
    for (const client of [...open, next]) client?.close();
  },
);

test(
  'the audit log lies in the data folder, for its owner alone, and tells of start and stop',
  { timeout: 60_000 },
  async () => {
    await server.close();
    const file = path.join(folder, 'data', 'audit.log');
    assert.equal(statSync(file).mode & 0o777, 0o600);
    const lines = readFileSync(file, 'utf8')
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line) as { event: string; v: number });
    assert.deepEqual(
      lines.map(({ v, event }) => [v, event]),
      [
        [1, 'server_started'],
        [1, 'server_stopped'],
      ],
    );
    assert.equal(statSync(path.join(folder, 'data', 'audit-key')).mode & 0o777, 0o600);
    const told = log.lines.filter((line) => line.includes('"plugin":"logging"'));
    assert.ok(told.some((line) => line.includes('plugin loaded')));
    assert.ok(told.some((line) => line.includes('shutdown')));

    // A plugin or an audit log that cannot be used is no server without it; `off` is none that was asked for.
    for (const flags of [
      { plugin: [path.join(folder, 'missing.ts')] },
      { auditLog: path.join(folder, 'missing', 'x.log') },
    ]) {
      await assert.rejects(startServer(configOf(flags), { log }), /cannot be (?:used|written)/);
    }
    const silent = await startServer(configOf({ auditLog: 'off' }), { log });
    await silent.close();
    assert.equal(readFileSync(file, 'utf8').trim().split('\n').length, 2);
  },
);
