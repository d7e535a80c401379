/** The server's key-transparency log: does it hold together, and does it say the truth about oneself and others? */
import type { AuditedAccount, AuditFinding, AuditReport } from '@quicprochat/client/node';
import type { Command } from '../command.ts';
import { CliError, ExitCode } from '../errors.ts';
import { findConversation } from '../find-conversation.ts';
import { column, type JsonFields, type Output } from '../output.ts';
import { clock, conversationFields, time } from '../show.ts';

export const audit: Command = {
  name: 'audit',
  topic: 'People',
  summary: "check the server's log of everybody's keys",
  details:
    'Fetches the whole key-transparency log, recomputes it, compares it with what this profile and the people you talk to ' +
    'were shown before, and looks up in it your own account and everybody this profile knows. Whatever does not fit is a ' +
    'finding: it is described, kept in the profile with its evidence (--json prints it), and the exit code is 5. What was ' +
    'found before counts until it is accepted.',
  options: [
    { name: 'accept', summary: 'go on in spite of what was found so far, and send again where that had paused it' },
  ],
  examples: ['qpc audit', 'qpc audit --json'],
  run: async ({ out, session }, input) => {
    const client = await session.online();
    session.listens = true;
    const report = await client
      .audit({ progress: (entries, of) => out.meter('entries', entries, of), accept: input.has('accept') })
      .finally(() => out.endMeter());
    show(out, report);
    const open = report.findings.filter(({ accepted }) => !accepted);
    const failed = report.accounts.filter(({ outcome }) => outcome === 'failed');
    const unchecked = report.accounts.filter(({ outcome }) => outcome === 'unchecked');
    if (open.length > 0 || failed.length > 0 || report.root === undefined) {
      // An account that a finding names is one thing, not two.
      const named = new Set(open.map(({ username }) => username));
      const count = open.length + failed.filter(({ username }) => !named.has(username)).length;
      throw new CliError(
        ExitCode.unverified,
        'log-inconsistent',
        count <= 1
          ? 'something in the log is not as it should be'
          : `${count} things in the log are not as they should be`,
        open.length > 0
          ? 'keep the evidence (qpc audit --json), ask the people concerned over another channel, and tell the operator; ' +
              '"qpc audit --accept" goes on in spite of it'
          : 'new keys of the accounts above are refused as long as it is so: ask these people over another channel, and ' +
              'tell the operator',
      );
    }
    if (unchecked.length > 0) {
      throw new CliError(
        ExitCode.refused,
        'rate-limited',
        `the log is consistent, but ${unchecked.length} accounts were not looked up: ${unchecked[0]!.reason}`,
        'wait a while, then run it again',
      );
    }
    out.say({ text: 'The log is consistent', style: 'green' }, ', with itself and with everything seen before.');
    return logFields(report);
  },
};

export const resume: Command = {
  name: 'resume',
  topic: 'Chat',
  summary: 'send again where sending was paused, once you have looked into why',
  details:
    'Sending pauses when the keys of a member, the roster, or the log of the server are not what they have to be; "qpc join" ' +
    'shows the reason. What was written meanwhile is sent. Asks no server.',
  args: [{ name: 'CONVERSATION', summary: "a group's name, @USER, or # and the beginning of its id" }],
  inChat: true,
  run: async ({ out, session }, input) => {
    const client = await session.account();
    const before = await findConversation(client, input.word('CONVERSATION'));
    await client.resumeSending(before.id);
    out.say(
      before.paused === undefined
        ? 'Sending was not paused there.'
        : `Sending goes on. It was paused: ${before.paused}`,
    );
    return { conversation: conversationFields(await client.findConversation(before.id)), was: before.paused };
  },
};

function show(out: Output, report: AuditReport): void {
  const { log, entries, root, changedAt, accounts, findings } = report;
  out.event('log', logFields(report), 'log      ', log);
  if (entries !== undefined) out.say('entries  ', String(entries));
  if (root !== undefined) out.say('root     ', root);
  if (changedAt !== undefined)
    out.say('changed  ', { text: `entry ${changedAt} is not what it was before`, style: 'red' });
  for (const account of accounts) showAccount(out, account);
  for (const finding of findings) showFinding(out, finding);
}

function logFields({ log, entries, root, checkpoint, changedAt, accounts, findings }: AuditReport): JsonFields {
  const consistent =
    root !== undefined &&
    accounts.every(({ outcome }) => outcome !== 'failed') &&
    findings.every(({ accepted }) => accepted);
  return { log, entries, root, checkpoint, changedAt, consistent };
}

function showAccount(out: Output, account: AuditedAccount): void {
  const { username, self, outcome, version, reason } = account;
  const words = {
    verified: { text: `verified, version ${version}`, style: 'green' },
    unlisted: { text: reason ?? '', style: 'yellow' },
    failed: { text: `DOES NOT CHECK OUT: ${reason}`, style: 'red' },
    unchecked: { text: `not looked up: ${reason}`, style: 'yellow' },
  } as const;
  out.event('account', { ...account }, column(self ? 'you' : 'contact', 9), column(username, 20), words[outcome]);
}

function showFinding(out: Output, { foundAtMs, ...finding }: AuditFinding): void {
  const foundAt = time(foundAtMs);
  const when = clock(foundAtMs, Date.now());
  const about = finding.username === undefined ? when : `about ${finding.username}, ${when}`;
  out.event(
    'finding',
    { ...finding, foundAt },
    { text: finding.accepted ? 'accepted ' : 'FOUND    ', style: finding.accepted ? 'dim' : 'red' },
    `${finding.text} (${about})`,
  );
}
