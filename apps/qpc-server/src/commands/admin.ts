/** Moderation and care of accounts, on a server that runs or on the folder of one that does not. */
import { rmSync } from 'node:fs';
import {
  findRunning,
  openOperator,
  OperatorRefusal,
  readReport,
  readReportPrivateKey,
  writeReportKeyFiles,
} from '@quicprochat/server';
import type { Operator } from '@quicprochat/server';
import { folderSettings } from '../command.ts';
import type { Command, CommandContext } from '../command.ts';
import { notRunning, usageError } from '../errors.ts';
import { iso, plural } from '../output.ts';
import type { JsonFields } from '../output.ts';

const ACCOUNT = { name: 'ACCOUNT', summary: 'a username, or an identity key of 64 hex digits' } as const;
const WORKS_STOPPED = 'Works on a running server, and on the data folder of a stopped one.';

async function withOperator<T>(context: CommandContext, use: (operator: Operator) => Promise<T>): Promise<T> {
  const operator = await openOperator(context.config(), context.signal);
  try {
    return await use(operator);
  } finally {
    await operator.close();
  }
}

/** All of a list that is answered in pages. */
async function* pages<T>(next: (last: T | undefined) => Promise<readonly T[]>): AsyncGenerator<T> {
  for (let page = await next(undefined); page.length > 0; page = await next(page.at(-1))) yield* page;
}

const until = (untilMs: number | undefined): string => (untilMs === undefined ? 'for good' : `until ${iso(untilMs)}`);

const accounts: Command = {
  name: 'admin accounts',
  summary: 'list all accounts',
  details: WORKS_STOPPED,
  settings: folderSettings,
  run: (context) =>
    withOperator(context, async (operator) => {
      const { out, signal } = context;
      let count = 0;
      const all = pages<{ username: string; identityKey: string; createdAtMs: number; devices: number }>((last) =>
        operator.call('accounts', { after: last?.username ?? '' }, { signal }),
      );
      for await (const { createdAtMs, ...account } of all) {
        count++;
        out.event(
          'account',
          { ...account, createdAt: iso(createdAtMs) },
          `${account.username.padEnd(32)} ${account.identityKey} ${plural(account.devices, 'device')}, since ${iso(createdAtMs)?.slice(0, 10)}`,
        );
      }
      if (count === 0) out.say('There are no accounts.');
      return { count };
    }),
};

const account: Command = {
  name: 'admin account',
  summary: 'show an account, its devices and its ban',
  details: `${WORKS_STOPPED} Shows no secret: there is none to show.`,
  args: [ACCOUNT],
  settings: folderSettings,
  run: (context) =>
    withOperator(context, async (operator) => {
      const { out, signal } = context;
      const found = await operator.call('account', { account: context.word('ACCOUNT') }, { signal });
      const { createdAtMs, devices, ban: banned, ...named } = found;
      out.say(`${named.username}, identity key ${named.identityKey}, since ${iso(createdAtMs)}`);
      if (banned) out.say(`banned ${until(banned.untilMs)}${banned.reason === '' ? '' : `: ${banned.reason}`}`);
      for (const device of devices) {
        const seen = iso(device.lastSeenDayMs)?.slice(0, 10) ?? '';
        const live = operator.running ? `, ${plural(device.connections, 'connection')}` : '';
        out.say(`  device ${device.deviceId} "${device.name}", last seen ${seen}${live}`);
      }
      return {
        ...named,
        createdAt: iso(createdAtMs),
        banned: banned !== undefined,
        ...(banned === undefined ? {} : { reason: banned.reason, until: iso(banned.untilMs) ?? null }),
        devices: devices.map(({ registeredAtMs, lastSeenDayMs, ...device }) => ({
          ...device,
          registeredAt: iso(registeredAtMs),
          lastSeenDay: iso(lastSeenDayMs)?.slice(0, 10),
        })),
      };
    }),
};

const UNITS: Readonly<Record<string, number>> = { s: 1, m: 60, h: 3_600, d: 86_400, w: 604_800 };

function durationSecs(text: string | undefined): number {
  if (text === undefined) return 0;
  const match = /^([1-9]\d{0,8})([smhdw])$/.exec(text);
  const unit = UNITS[match?.[2] ?? ''];
  if (match === null || unit === undefined)
    throw usageError(`--for takes a time such as 30m, 12h or 7d, not "${text}"`, 'Leave it out for good.');
  const secs = Number(match[1]) * unit;
  if (secs > 100 * 365 * 86_400) throw usageError('a ban ends within a hundred years', 'Leave --for out for good.');
  return secs;
}

const ban: Command = {
  name: 'admin ban',
  summary: 'shut an account out, at once',
  details: `${WORKS_STOPPED} Its live connections end; its inbox and groups stay. Whoever can log in hears the reason.`,
  args: [ACCOUNT],
  options: [
    { name: 'reason', value: 'TEXT', summary: 'what the banned person is told' },
    { name: 'for', value: 'TIME', summary: '30m, 12h, 7d; without it, for good' },
  ],
  settings: folderSettings,
  examples: ['qpc-server admin ban mallory --reason "sells umbrellas" --for 7d'],
  run: (context) =>
    withOperator(context, async (operator) => {
      const { out, signal } = context;
      const request = {
        account: context.word('ACCOUNT'),
        reason: context.option('reason') ?? '',
        durationSecs: durationSecs(context.option('for')),
      };
      const { untilMs, ...done } = await operator.call('ban', request, { signal });
      const ended = operator.running ? `; ${plural(done.connectionsEnded, 'connection')} ended` : '';
      out.say(`${done.username} is banned ${until(untilMs)}${ended}`);
      return { ...done, until: iso(untilMs) ?? null };
    }),
};

const unban: Command = {
  name: 'admin unban',
  summary: 'let an account in again',
  details: WORKS_STOPPED,
  args: [ACCOUNT],
  settings: folderSettings,
  run: (context) =>
    withOperator(context, async (operator) => {
      const { out, signal } = context;
      const done = await operator.call('unban', { account: context.word('ACCOUNT') }, { signal });
      out.say(done.lifted ? `${done.username} may come in again` : `${done.username} was not banned`);
      return done;
    }),
};

const bans: Command = {
  name: 'admin bans',
  summary: 'list the bans in force',
  details: WORKS_STOPPED,
  settings: folderSettings,
  run: (context) =>
    withOperator(context, async (operator) => {
      const { out, signal } = context;
      let count = 0;
      const all = pages<{
        identityKey: string;
        username: string | undefined;
        reason: string;
        untilMs: number | undefined;
      }>((last) => operator.call('bans', { after: last?.identityKey ?? '' }, { signal }));
      for await (const { untilMs, ...each } of all) {
        count++;
        const reason = each.reason === '' ? '' : `: ${each.reason}`;
        out.event(
          'ban',
          { ...each, until: iso(untilMs) ?? null },
          `${(each.username ?? '(deleted)').padEnd(32)} ${each.identityKey} ${until(untilMs)}${reason}`,
        );
      }
      if (count === 0) out.say('Nobody is banned.');
      return { count };
    }),
};

const endSessions: Command = {
  name: 'admin end-sessions',
  summary: 'end the sessions of an account, or of one device: the password is asked for again',
  details: WORKS_STOPPED,
  args: [ACCOUNT],
  options: [{ name: 'device', value: 'ID', summary: 'only this one, 32 hex digits' }],
  settings: folderSettings,
  run: (context) => {
    const device = context.option('device');
    const deviceId = device?.toLowerCase();
    if (deviceId !== undefined && !/^[0-9a-f]{32}$/.test(deviceId)) {
      throw usageError(`--device takes an id of 32 hex digits, not "${device}"`, 'See qpc-server admin account NAME.');
    }
    return withOperator(context, async (operator) => {
      const { out, signal } = context;
      const request = { account: context.word('ACCOUNT'), ...(deviceId === undefined ? {} : { deviceId }) };
      const done = await operator.call('endSessions', request, { signal });
      out.say(
        `${plural(done.sessionsEnded, 'session')} of ${done.username} ended, ${plural(done.connectionsEnded, 'connection')} closed`,
      );
      return done;
    });
  },
};

const reportKey: Command = {
  name: 'admin report-key',
  summary: 'make the key that users’ reports are sealed to',
  details:
    `${WORKS_STOPPED} The private key is written to FILE, which the server never needs: keep it where you read reports, ` +
    'best on another machine, and keep a copy; without it the reports that wait stay closed. The public key is given to the ' +
    'server, which tells clients at once, and written to FILE.pub. Without --out: say which key is in use.',
  options: [
    { name: 'out', value: 'FILE', summary: 'a new file for the private key, mode 0600' },
    { name: 'replace', summary: 'though there is a key; older reports still need the old one' },
  ],
  settings: folderSettings,
  examples: ['qpc-server admin report-key --out ~/qpc-report-key'],
  run: (context) =>
    withOperator(context, async (operator) => {
      const { out, signal } = context;
      const present = await operator.call('reportKey', {}, { signal });
      const file = context.option('out');
      if (file === undefined) {
        out.say(
          present.keyId === undefined ? 'There is no report key.' : `Reports are sealed to key ${present.keyId}.`,
        );
        return { keyId: present.keyId ?? null };
      }
      if (present.keyId !== undefined && !context.has('replace')) {
        throw usageError(
          `there is a report key already, ${present.keyId}`,
          'To change it all the same, give --replace.',
        );
      }
      const { publicKey, publicKeyPath } = writeReportKeyFiles(file);
      const request = { publicKey, replace: context.has('replace') };
      const done = await operator.call('setReportKey', request, { signal }).catch((error: unknown) => {
        // Nobody seals to it. After a mere loss of connection somebody may.
        if (error instanceof OperatorRefusal) for (const each of [file, publicKeyPath]) rmSync(each, { force: true });
        throw error;
      });
      out.say(`Reports are sealed to key ${done.keyId ?? ''} from now on. Its private half is ${file}: keep it safe.`);
      return { keyId: done.keyId, previousKeyId: done.previousKeyId ?? null, privateKeyPath: file, publicKeyPath };
    }),
};

const reports: Command = {
  name: 'admin reports',
  summary: 'list the reports that wait, and with their key, read them',
  details:
    `${WORKS_STOPPED} Only the key's own machine needs --key. Who wrote a reported message is the reporter's word; that the ` +
    'report is the reporter’s is checked.',
  options: [{ name: 'key', value: 'FILE', summary: 'the private key that admin report-key wrote' }],
  settings: folderSettings,
  examples: ['qpc-server admin reports --key ~/qpc-report-key', 'qpc-server admin delete-reports 1 2'],
  run: (context) =>
    withOperator(context, async (operator) => {
      const { out, signal } = context;
      const file = context.option('key');
      const key = file === undefined ? undefined : readReportPrivateKey(file);
      const { origin } = await operator.call('about', {}, { signal });
      const accountOf = async (identityKey: string) => {
        try {
          return await operator.call('account', { account: identityKey }, { signal });
        } catch (error) {
          if (error instanceof Error && 'code' in error && error.code === 'not-found') return undefined;
          throw error;
        }
      };
      let count = 0;
      let closed = 0;
      const all = pages<{ id: number; receivedAtMs: number; conversationId: string; report: string }>((last) =>
        operator.call('reports', { afterId: last?.id ?? 0 }, { signal }),
      );
      for await (const sealed of all) {
        count++;
        const { id, receivedAtMs, conversationId } = sealed;
        const fields = { id, receivedAt: iso(receivedAtMs), conversation: conversationId };
        const head = `report ${id}, received ${iso(receivedAtMs)}, conversation ${conversationId}`;
        if (key === undefined) {
          out.event('report', { ...fields, state: 'sealed' }, head);
          continue;
        }
        const outcome = await readReport(sealed, origin, key, accountOf);
        if (outcome.kind !== 'read') {
          closed++;
          const why =
            outcome.kind === 'other_key' ? `sealed to another key, ${outcome.keyId}` : 'damaged, or not a report';
          out.event('report', { ...fields, state: outcome.kind.replace('_', '-') }, head, `  ${why}`);
          continue;
        }
        out.event(
          'report',
          { ...fields, state: 'open', ...reportFields(outcome.report) },
          head,
          ...reportLines(outcome.report),
        );
      }
      if (count === 0) out.say('No report waits.');
      return { count, unreadable: closed };
    }),
};

type ReadReport = Extract<Awaited<ReturnType<typeof readReport>>, { kind: 'read' }>['report'];

function reportFields({ reportedAtMs, messages, ...report }: ReadReport): JsonFields {
  return {
    ...report,
    reportedAt: iso(reportedAtMs),
    messages: messages.map(({ sentAtMs, ...message }) => ({ ...message, sentAt: iso(sentAtMs) })),
  };
}

function reportLines({ reporter, signature, reason, messages }: ReadReport): string[] {
  const whose = {
    valid: 'signed by that account’s device',
    invalid: 'BUT NOT SIGNED BY IT: do not believe it',
    unknown: 'whose device is gone, so nobody can tell',
  }[signature];
  return [
    `  by ${reporter.username} (${whose})`,
    ...(reason === '' ? [] : [`  ${reason}`]),
    ...messages.map(({ sender, sentAtMs, text }) => `    ${iso(sentAtMs) ?? '(no such date)'} ${sender}: ${text}`),
  ];
}

/** In one request. */
const IDS_MAX = 1_000;

const deleteReports: Command = {
  name: 'admin delete-reports',
  summary: 'remove reports that have been dealt with',
  details: WORKS_STOPPED,
  args: [{ name: 'ID', summary: 'numbers, as admin reports shows them', rest: true }],
  settings: folderSettings,
  run: (context) =>
    withOperator(context, async (operator) => {
      const ids = context.words('ID').map((word) => {
        if (!/^[1-9]\d{0,14}$/.test(word))
          throw usageError(`"${word}" is no number of a report`, 'See qpc-server admin reports.');
        return Number(word);
      });
      let deleted = 0;
      for (let at = 0; at < ids.length; at += IDS_MAX) {
        const some = ids.slice(at, at + IDS_MAX);
        deleted += (await operator.call('deleteReports', { ids: some }, { signal: context.signal })).deleted;
      }
      context.out.say(`${plural(deleted, 'report')} removed`);
      return { deleted };
    }),
};

const reloadCertificate: Command = {
  name: 'admin reload-certificate',
  summary: 'take up a renewed certificate now; it happens by itself within seconds, or on SIGHUP',
  settings: folderSettings,
  run: async ({ out, config, signal }) => {
    const { dataDir } = config();
    const server = await findRunning(config(), signal);
    if (server === undefined) throw notRunning(dataDir);
    const { kind, expiresAtMs } = await server.call('reloadCertificate', {}, { signal });
    const date = iso(expiresAtMs)?.slice(0, 10) ?? '';
    out.say(
      kind === 'replaced'
        ? `The new certificate is in use, until ${date}.`
        : `The certificate is the same, until ${date}.`,
    );
    return { replaced: kind === 'replaced', expiresAt: iso(expiresAtMs) };
  },
};

export const ADMIN_COMMANDS: readonly Command[] = [
  accounts,
  account,
  ban,
  unban,
  bans,
  endSessions,
  reportKey,
  reports,
  deleteReports,
  reloadCertificate,
];
