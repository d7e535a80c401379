import path from 'node:path';
import { openOperator } from '@quicprochat/server';
import { folderSettings } from '../command.ts';
import type { Command } from '../command.ts';
import { bytesText, plural } from '../output.ts';

export const backup: Command = {
  name: 'backup',
  summary: 'copy a server to a new folder, consistent, while it runs or not',
  details:
    'The folder holds the database as of one moment, encrypted if the server has it encrypted, all files, and a manifest ' +
    'with the hash of each. The server makes it: it has to be able to write there. The secrets beside the database ' +
    '(opaque-setup, receipt-key, log-key, log-vrf-key, audit-key, a certificate made here) stay out unless --with-secrets asks for ' +
    'them: whoever has them and the database can try passwords offline. Copy them once, and keep them apart; without ' +
    'them no backup can be used. The key of --store-key-file is never copied.',
  args: [{ name: 'FOLDER', summary: 'does not exist yet' }],
  options: [{ name: 'with-secrets', summary: 'the secrets too: guard that folder like the server itself' }],
  settings: folderSettings,
  examples: [
    'qpc-server backup --data-dir /srv/qpc /backup/qpc-2026-11-21',
    'qpc-server restore --check /backup/qpc-2026-11-21',
  ],
  run: async ({ out, config, signal, word, has }) => {
    const operator = await openOperator(config(), signal);
    try {
      const request = { target: path.resolve(word('FOLDER')), withSecrets: has('with-secrets') };
      const report = await operator.call('backUp', request, {
        signal,
        onProgress: ({ step, bytes, totalBytes }) => {
          out.progress(`${String(step)}: ${bytesText(Number(bytes))} of about ${bytesText(Number(totalBytes))}`);
        },
      });
      out.endProgress();
      out.say(
        `${report.path}: ${plural(report.files, 'file')}, ${bytesText(report.bytes)}, of ${report.origin} with ${plural(report.accounts, 'account')}`,
      );
      if (report.withSecrets) out.warn('the folder holds the server’s secrets: guard it like the server itself');
      else out.say('Its secrets are not in it: keep a copy of them apart (see qpc-server backup --help).');
      return { ...report };
    } finally {
      await operator.close();
    }
  },
};
