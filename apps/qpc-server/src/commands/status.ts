import { findRunning } from '@quicprochat/server';
import type { ServerStatus } from '@quicprochat/server';
import type { Command } from '../command.ts';
import { folderSettings } from '../command.ts';
import { notRunning } from '../errors.ts';
import { bytesText, durationText, iso } from '../output.ts';
import type { Output } from '../output.ts';

export const status: Command = {
  name: 'status',
  summary: 'say how the server that runs on a data folder is',
  details: 'Exit code 3 when none runs. Everything that its operator should look into is a warning, at the end.',
  settings: folderSettings,
  examples: ['qpc-server status --data-dir /srv/qpc', 'qpc-server status --json'],
  run: async ({ out, config, signal }) => {
    const { dataDir } = config();
    const server = await findRunning(config(), signal);
    if (server === undefined) throw notRunning(dataDir);
    const found = await server.call('status', {}, { signal });
    show(out, found);
    const { startedAtMs, certificate, ...others } = found;
    const { expiresAtMs, ...restOfIt } = certificate;
    return {
      ...others,
      startedAt: iso(startedAtMs),
      certificate: { ...restOfIt, expiresAt: iso(expiresAtMs) },
    };
  },
};

function show(out: Output, found: ServerStatus): void {
  const { store, certificate } = found;
  const line = (name: string, text: string): void => out.say(`${name.padEnd(14)} ${text}`);
  const count = (n: number, one: string, many = `${one}s`): string => `${n} ${n === 1 ? one : many}`;
  line('server', `qpc-server ${found.version}, process ${found.pid}, running for ${durationText(found.uptimeSecs)}`);
  line('origin', found.origin);
  line('listens on', `${found.listen} (UDP)${found.metrics === undefined ? '' : `; metrics on ${found.metrics}`}`);
  line('data folder', `${found.dataDir}, ${bytesText(store.freeBytes)} free`);
  line('connections', `${found.connections}, ${count(found.callsInFlight, 'call')} in flight`);
  line('accounts', `${found.accounts}, ${count(found.devices, 'device')}, ${count(found.channels, 'channel')}`);
  line('waiting', `${count(found.queuedEnvelopes, 'envelope')}, ${bytesText(found.queuedBytes)}`);
  line('files', `${found.blobs}, ${bytesText(found.blobBytes)}`);
  line('key log', count(found.logEntries, 'entry', 'entries'));
  line('reports', String(found.reports));
  line(
    'store',
    `${store.state === 'ok' ? 'ok' : `FAILING (${store.failure ?? 'unknown'})`}, ${store.backend}, ` +
      `${store.encrypted ? 'encrypted' : 'not encrypted'}, schema ${store.schemaVersion}, ` +
      `${bytesText(store.bytes)} and ${bytesText(store.walBytes)} in its log, ${count(store.pendingWrites, 'write')} pending`,
  );
  line(
    'certificate',
    `${certificate.path}, ${certificate.daysLeft < 0 ? 'EXPIRED' : 'valid'} until ` +
      `${iso(certificate.expiresAtMs)?.slice(0, 10) ?? ''} (${count(certificate.daysLeft, 'day')} left)`,
  );
  for (const { text } of found.warnings) out.say(`warning:       ${text}`);
}
