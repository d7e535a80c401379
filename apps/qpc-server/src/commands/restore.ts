import path from 'node:path';
import { readStoreKey, restoreServer } from '@quicprochat/server';
import { folderSettings } from '../command.ts';
import type { Command } from '../command.ts';
import { bytesText, plural } from '../output.ts';

export const restore: Command = {
  name: 'restore',
  summary: 'check a backup, and put it into a new data folder',
  details:
    'Checks every file against its hash, the database as a whole, its schema, its origin and its key, and overwrites ' +
    'nothing: the data folder may hold the secrets, but no database. What a server has promised since the backup is lost ' +
    'with it, and clients can see that: the key-transparency log goes back, and clients that saw more of it say so. See ' +
    'docs/server.md before you start a restored server for others.',
  args: [{ name: 'BACKUP', summary: 'the folder that backup made' }],
  options: [{ name: 'check', summary: 'only check; restore nothing' }],
  settings: (setting) => folderSettings(setting) || setting.path === 'origin',
  examples: [
    'qpc-server restore --data-dir /srv/qpc-new /backup/qpc-2026-11-21',
    'qpc-server restore --check /backup/qpc-2026-11-21',
  ],
  run: async ({ out, config, signal, word, has }) => {
    const { dataDir, origin, storeKeyFile } = config();
    const storeKey = readStoreKey(storeKeyFile);
    const target = has('check') ? undefined : path.resolve(dataDir);
    const request = { source: path.resolve(word('BACKUP')), dataDir: target, origin, storeKey, nowMs: Date.now() };
    const report = await restoreServer(
      request,
      ({ bytes, totalBytes }) => out.progress(`checked ${bytesText(bytes)} of ${bytesText(totalBytes)}`),
      signal,
    );
    out.endProgress();
    storeKey?.fill(0);
    out.say(
      `The backup is whole: ${report.origin}, made ${report.createdAt} by qpc-server ${report.version}, schema ` +
        `${report.schemaVersion}, ${plural(report.accounts, 'account')}, ${plural(report.files, 'file')}, ${bytesText(report.bytes)}.`,
    );
    if (target !== undefined) out.say(`It has been restored to ${target}.`);
    if (report.secretsMissing.length > 0) {
      out.warn(
        `the server needs ${report.secretsMissing.join(', ')}, which ${report.secretsMissing.length === 1 ? 'is' : 'are'} not in ` +
          `the backup: copy them into ${target ?? 'the data folder'} before you start it, mode 0600` +
          (report.secretsMissing.includes('cert.pem') ? '; or give it another certificate, with --tls-cert' : ''),
      );
    }
    if (report.logEntries > 0) {
      out.warn(
        `the key-transparency log goes back to ${report.logEntries} ${report.logEntries === 1 ? 'entry' : 'entries'}: if accounts or devices changed after ` +
          `${report.createdAt}, clients that saw it will say that the server has rolled back its log`,
      );
    }
    return { ...report, dataDir: target ?? null };
  },
};
