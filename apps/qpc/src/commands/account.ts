/** One's own account: make it, log in and out, see who one is, keep its published keys fresh. */
import type { Command, CommandContext, CommandInput } from '../command.ts';
import { usageError } from '../errors.ts';
import { accountFields } from '../show.ts';
import { isPlain } from '../terminal-text.ts';

export const registerUser: Command = {
  name: 'register-user',
  topic: 'Start here',
  summary: 'make an account and log in',
  details:
    'Makes the keys of this device in the profile, then the account on the server. The password never leaves this machine ' +
    '(OPAQUE). Server and certificate are kept with the profile, so that later commands need no flags. Repeat the command ' +
    'if it was interrupted: it completes what was begun.',
  args: [{ name: 'NAME', summary: 'a-z, 0-9, dot, dash, underscore; 2 to 32 characters', optional: true }],
  examples: [
    'qpc register-user alice',
    'qpc --profile work --server chat.example.org register-user alice.w',
    'qpc register-user alice --password-file alice.password',
  ],
  run: async (context, input) => {
    const { out, session, passwords } = context;
    const username = accountName(context, input);
    if (username === undefined) throw usageError('a name is missing', 'write: qpc register-user NAME');
    const client = await session.connected({ create: true });
    const password = await passwords.ask(session.accountPassword, `New password for ${username}`, true);
    const account = await client.register(username, password);
    await session.rememberServer();
    out.say('Welcome, ', { text: account.username, style: 'bold' }, '. Your keys are in ', session.folder);
    out.say('Next: qpc dm USER "Hello", or qpc group create NAME');
    return { ...accountFields(account), profile: session.folder };
  },
};

export const login: Command = {
  name: 'login',
  topic: 'Account',
  summary: "log in again with the profile's account",
  details: 'Needed after "qpc logout", or when the server has ended the session (30 days without use).',
  args: [{ name: 'NAME', summary: "the account; default the profile's", optional: true }],
  examples: ['qpc login', 'qpc login alice --password-stdin < alice.password'],
  run: async (context, input) => {
    const { out, session, passwords } = context;
    const client = await session.profile();
    const username = accountName(context, input) ?? (await client.whoami())?.username;
    if (username === undefined) throw usageError('a name is missing', 'write: qpc login NAME');
    await session.connected();
    const password = await passwords.ask(session.accountPassword, `Password for ${username}`, false);
    const account = await client.login(username, password);
    await session.rememberServer();
    out.say('Logged in as ', { text: account.username, style: 'bold' }, '.');
    return accountFields(account);
  },
};

export const logout: Command = {
  name: 'logout',
  topic: 'Account',
  summary: 'end the session; messages and keys stay in the profile',
  run: async ({ out, session }) => {
    const client = await session.profile();
    const account = await client.whoami();
    if (account?.loggedIn) {
      // Without a server the session is forgotten here all the same; it ends there by itself.
      await session.connected().catch(() => out.warn('the server cannot be told now; its session ends by itself'));
    }
    await client.logout();
    out.say('Logged out. Your messages and keys are still in ', session.folder);
    return { username: account?.username };
  },
};

export const whoami: Command = {
  name: 'whoami',
  topic: 'Account',
  summary: "show the profile's account and keys; asks no server",
  inChat: true,
  run: async ({ out, session }) => {
    const client = await session.profile();
    const account = await client.whoami();
    if (!account) {
      out.say('This profile has no account yet. Make one with "qpc register-user NAME".');
      return { username: null, profile: session.folder };
    }
    out.say('name          ', { text: account.username, style: 'bold' });
    out.say('identity key  ', account.identityKey);
    out.say('device        ', account.deviceId);
    out.say('server        ', account.serverOrigin);
    out.say('session       ', account.loggedIn ? 'logged in' : 'logged out');
    out.say('profile       ', session.folder);
    return { ...accountFields(account), profile: session.folder };
  },
};

export const refreshKeypackage: Command = {
  name: 'refresh-keypackage',
  topic: 'Account',
  summary: 'publish fresh keys with which others can add you to groups',
  details: 'qpc tops them up by itself. --all replaces those that are still there.',
  options: [{ name: 'all', summary: 'replace all of them' }],
  inChat: true,
  run: async ({ out, session }, input) => {
    const client = await session.online();
    const uploaded = await client.refreshKeyPackages({ all: input.has('all') });
    out.say(uploaded === 0 ? 'Enough of them are published already.' : `Published ${uploaded} KeyPackages.`);
    return { uploaded };
  },
};

export const deleteAccount: Command = {
  name: 'account delete',
  topic: 'Account',
  summary: 'end your account for good',
  details:
    'Removes everything of the account from the server: keys, sessions, messages that wait. The log of keys says that it is ' +
    'over, and nobody can ever have the name again. Leave your groups first if the others should see you go. What was said ' +
    "stays readable in this profile. Asks for the account's name to be typed once more.",
  options: [{ name: 'yes', summary: 'do it without asking' }],
  examples: ['qpc account delete', 'qpc --profile old account delete --yes'],
  run: async ({ out, session, lines, signal }, input) => {
    const client = await session.online();
    const username = (await client.whoami())?.username ?? '';
    if (!input.has('yes')) {
      out.progress(`This ends the account ${username} for good. Type its name to go on:`);
      const typed = await lines.next(signal);
      if (typed?.trim() !== username) {
        throw usageError(
          'the name was not typed, so nothing was deleted',
          'run it again, or give --yes',
          'not-confirmed',
        );
      }
    }
    await client.deleteAccount();
    out.say('The account ', { text: username, style: 'bold' }, ' is gone. Its history is still in ', session.folder);
    return { username, profile: session.folder };
  },
};

/** The name as typed, or `--username`; both only if they agree. */
function accountName({ session }: CommandContext, input: CommandInput): string | undefined {
  const typed = input.optionalWord('NAME');
  if (typed !== undefined && session.username !== undefined && typed !== session.username) {
    throw usageError('two different names are given', 'leave out NAME or --username');
  }
  const name = typed ?? session.username;
  if (name !== undefined) checkUsername(name);
  return name;
}

/**
 * Refused before anything is connected or stored; the server checks again.
 * @throws CliError usage
 */
export function checkUsername(name: string): void {
  if (/^[a-z0-9._-]{2,32}$/u.test(name)) return;
  throw usageError(
    isPlain(name) ? `"${name}" is not a username` : 'the username holds control characters',
    'use 2 to 32 of a-z, 0-9, dot, dash and underscore',
    'invalid-username',
  );
}
