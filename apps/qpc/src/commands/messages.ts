/** Writing and reading: direct conversations, sending, receiving once, waiting, history, invitations. */
import type { Client, Conversation, Message } from '@quicprochat/client/node';
import { untilAborted } from '../abort.ts';
import type { Command, CommandContext, CommandInput } from '../command.ts';
import { CliError, ExitCode, KEPT_HINT, usageError } from '../errors.ts';
import { findConversation, findOrFetchConversation } from '../find-conversation.ts';
import type { JsonFields } from '../output.ts';
import { toCliError } from '../sdk-errors.ts';
import type { Session } from '../session.ts';
import { conversationFields, conversationLine, messageFields, messageLine, printEvent, printMessage } from '../show.ts';
import { SUITE_OPTION, suiteOptions, warnOfOtherSuite } from '../suite.ts';
import { checkUsername } from './account.ts';

/** The content schema's limit. */
const TEXT_BYTES_MAX = 32_768;
/** How far back messages of others are looked for. */
const HISTORY_SEARCHED = 1_000;

const CONVERSATION = {
  name: 'CONVERSATION',
  summary: "a group's name, @USER, or # and the beginning of an id",
} as const;
const TEXT = {
  name: 'TEXT',
  summary: 'what to say; without it, standard input up to its end',
  optional: true,
  rest: true,
} as const;

export const dm: Command = {
  name: 'dm',
  topic: 'Start here',
  summary: 'open a direct conversation with somebody, and say something',
  details:
    'The other person needs an account on the same server, and may be offline. With your own name: a note to yourself.',
  args: [
    { name: 'USER', summary: 'whom to write to' },
    { name: 'TEXT', summary: 'what to say; without it the conversation is only opened', optional: true, rest: true },
  ],
  options: [SUITE_OPTION],
  examples: ['qpc dm bob "Hello, Bob"', 'qpc dm bob'],
  inChat: true,
  run: async (context, input) => {
    const user = input.word('USER').replace(/^@/u, '');
    checkUsername(user);
    const options = suiteOptions(input);
    const client = await context.session.online();
    const conversation = await client.openDirect(user, options);
    warnOfOtherSuite(context.out, options, conversation);
    const words = input.words('TEXT');
    if (words.length > 0) return sendText(context, client, conversation, words.join(' '));
    context.out.say('The conversation with ', { text: user, style: 'bold' }, ' is open.');
    context.out.say(`Next: qpc send @${user} TEXT, or qpc recv --follow @${user}`);
    return { conversation: conversationFields(conversation) };
  },
};

export const send: Command = {
  name: 'send',
  topic: 'Chat',
  summary: 'send a message',
  details:
    'Ends when the server has the message on disk. If the server cannot be reached, the message is kept in the profile and ' +
    'goes out with the next command; the exit code is then 3.',
  args: [CONVERSATION, TEXT],
  examples: ['qpc send team "Lunch at one?"', 'echo done | qpc send @bob', 'qpc send team -- -5 degrees outside'],
  inChat: true,
  run: async (context, input) => {
    const client = await context.session.account();
    const conversation = await findOrFetchConversation(context.session, client, input.word('CONVERSATION'));
    const words = input.words('TEXT');
    const text = words.length > 0 ? words.join(' ') : await context.lines.rest(TEXT_BYTES_MAX + 1, context.signal);
    return sendText(context, client, conversation, words.length > 0 ? text : text.replace(/\r?\n$/u, ''));
  },
};

export const join: Command = {
  name: 'join',
  topic: 'Chat',
  summary: 'take up invitations, and list what you are in',
  details: 'Invitations are taken up by every command that connects; this one also says which ones came.',
  run: async ({ out, session }) => {
    const client = await session.online();
    await client.sync();
    const all = await client.conversations();
    const fresh = all.filter((conversation) => conversation.isNew);
    for (const conversation of all) {
      const type = conversation.isNew ? 'joined' : 'conversation';
      out.event(
        type,
        conversationFields(conversation),
        conversation.isNew ? { text: 'new  ', style: 'green' } : '     ',
        ...conversationLine(conversation),
      );
    }
    for (const conversation of fresh) await client.markConversationSeen(conversation.id);
    if (all.length === 0) out.say('Nothing yet. Start with "qpc dm USER" or "qpc group create NAME".');
    return { joined: fresh.map((conversation) => conversation.id), count: all.length };
  },
};

export const recv: Command = {
  name: 'recv',
  topic: 'Chat',
  summary: 'show new messages',
  details:
    'Prints what nobody has read yet, oldest first, and ends. With --wait it first waits until something has come. With ' +
    '--follow it stays until interrupted (Ctrl+C); given a conversation, each line of standard input is sent to it, lines ' +
    'that begin with / are commands (/help lists them, // sends a slash), and the end of input (Ctrl+D) ends the chat.',
  args: [{ ...CONVERSATION, optional: true }],
  options: [
    { name: 'wait', summary: 'wait until there is something new' },
    { name: 'count', value: 'N', summary: 'with --wait: until N messages have come' },
    { name: 'follow', value: 'CONVERSATION', valueOptional: true, summary: 'stay, and chat in a conversation' },
  ],
  examples: ['qpc recv', 'qpc recv team --wait --timeout 30', 'qpc recv --follow team', 'qpc recv --follow --json'],
  run: async (context, input) => {
    if (input.has('follow')) {
      if (input.has('wait') || input.has('count'))
        throw usageError('--follow goes on until it is interrupted', 'leave out --wait and --count');
      const { follow } = await import('../follow.ts');
      return follow(context, input.value('follow') ?? input.optionalWord('CONVERSATION'));
    }
    return receive(context, input);
  },
};

export const report: Command = {
  name: 'report',
  topic: 'Chat',
  summary: 'show what others wrote to the operator of the server',
  details:
    'Sends the newest message of others in the conversation (--last: the newest N; --messages: those) with your name and ' +
    'your words, sealed so that only the operator reads them. The operator learns what you show, and nothing else.',
  args: [CONVERSATION, { name: 'REASON', summary: 'what is wrong with it', optional: true, rest: true }],
  options: [
    { name: 'last', value: 'N', summary: 'the newest N messages of others, at most 50 (default 1)' },
    { name: 'messages', value: 'IDS', summary: 'these (localId, with --json), with commas in between' },
  ],
  examples: ['qpc report @mallory --last 3 "sells umbrellas"'],
  inChat: true,
  run: async ({ out, session }, input) => {
    const last = count(input, 'last');
    const named = input.value('messages');
    if (last !== undefined && named !== undefined) {
      throw usageError('--last and --messages are two ways to choose', 'give one of them');
    }
    // Chosen before anything new arrives: nobody reports what they have not been able to read yet.
    const profile = await session.account();
    const conversation = await findConversation(profile, input.word('CONVERSATION'));
    const ids = named === undefined ? await newestOfOthers(profile, conversation, last ?? 1) : messageIds(named);
    if (ids.length === 0) throw usageError('nobody else has written anything here', 'choose another conversation');
    const client = await session.online();
    await client.report(ids, input.words('REASON').join(' '));
    for (const id of ids) {
      const message = await client.message(id);
      if (message !== undefined) out.say(...messageLine(message, undefined));
    }
    out.say(
      `The operator of ${await session.serverLabel()} can read ${ids.length === 1 ? 'it' : `these ${ids.length}`} now.`,
    );
    return { conversation: conversation.id, messages: ids };
  },
};

async function newestOfOthers(client: Client, conversation: Conversation, wanted: number): Promise<readonly number[]> {
  const all = await client.history(conversation.id, { limit: HISTORY_SEARCHED });
  return all
    .filter((message) => !message.own)
    .slice(-wanted)
    .map((message) => message.localId);
}

function messageIds(text: string): readonly number[] {
  return text.split(',').map((word) => {
    if (!/^[1-9]\d{0,14}$/u.test(word))
      throw usageError(`"${word}" is no id of a message`, 'see localId in "qpc history --json"');
    return Number(word);
  });
}

export const history: Command = {
  name: 'history',
  topic: 'Chat',
  summary: 'show what was said; asks no server',
  args: [CONVERSATION],
  options: [
    { name: 'limit', value: 'N', summary: 'the newest N messages (default 50)' },
    { name: 'before', value: 'ID', summary: 'only messages before this one (localId, with --json)' },
  ],
  examples: ['qpc history team', 'qpc history @bob --limit 500 --json'],
  inChat: true,
  run: async ({ out, session }, input) => {
    const limit = count(input, 'limit') ?? 50;
    const before = count(input, 'before');
    const client = await session.profile();
    const conversation = await findConversation(client, input.word('CONVERSATION'));
    const messages = await client.history(conversation.id, { limit, ...(before === undefined ? {} : { before }) });
    for (const message of messages) printMessage(out, message, undefined);
    if (messages.length === 0) out.say('Nothing was said yet.');
    return { conversation: conversationFields(conversation), count: messages.length };
  },
};

/**
 * Queues, waits for the server, and says what became of it.
 * @throws CliError refused when nobody could be given the message
 */
async function sendText(
  { out, session }: CommandContext,
  client: Client,
  conversation: Conversation,
  text: string,
): Promise<JsonFields> {
  if (text === '') throw usageError('there is nothing to send', 'write the text after the conversation', 'empty-text');
  const queued = await client.send(conversation.id, text);
  // A note to oneself is done already: it never leaves the profile.
  if (queued.state === 'queued') await sendQueued(session, client, conversation.id);
  const sent = (await client.message(queued.localId)) ?? queued;
  refuseUndelivered(sent, conversation);
  for (const { username, reason } of sent.undelivered) out.warn(`not delivered to ${username}: ${REASONS[reason]}`);
  out.say({ text: sent.state === 'sent' ? 'Sent.' : 'Kept until it can be sent.', style: 'dim' });
  return messageFields(sent);
}

/**
 * Waits until the server has what is queued in a conversation.
 * @throws CliError unreachable or timeout, saying that it is kept
 */
export async function sendQueued(session: Session, client: Client, conversationId: string): Promise<void> {
  session.queued = true;
  try {
    await session.connected();
    await client.flush({ conversationId });
    session.queued = false;
  } catch (error) {
    const { exitCode, code, message } = toCliError(error);
    if (exitCode !== ExitCode.unreachable && exitCode !== ExitCode.timeout) throw error;
    throw new CliError(exitCode, code, message, KEPT_HINT);
  }
}

const REASONS = {
  full: 'the inbox is full',
  unknown: 'the account or device is gone',
  blocked: 'it does not accept your messages',
} as const;

function refuseUndelivered(message: Message, conversation: Conversation): void {
  const first = message.undelivered[0];
  if (message.state === 'failed' && !first) {
    throw new CliError(ExitCode.refused, 'refused', 'the server did not take the message', 'send it again');
  }
  if (!first || message.undelivered.length < conversation.memberCount - 1) return;
  const code = { full: 'inbox-full', unknown: 'recipient-gone', blocked: 'blocked' }[first.reason];
  throw new CliError(
    ExitCode.refused,
    code,
    `not delivered to ${first.username}: ${REASONS[first.reason]}`,
    first.reason === 'full'
      ? 'send it again once the other person has fetched messages'
      : 'check the name with "qpc resolve"',
  );
}

async function receive({ out, session, signal }: CommandContext, input: CommandInput): Promise<JsonFields> {
  const wanted = count(input, 'count') ?? (input.has('wait') ? 1 : 0);
  if (input.has('count') && !input.has('wait')) throw usageError('--count needs --wait', 'add --wait');
  const client = await session.account();
  session.listens = true;
  const reference = input.optionalWord('CONVERSATION');
  const only = reference === undefined ? undefined : await findOrFetchConversation(session, client, reference);
  let arrived = Promise.withResolvers<void>();
  const names = new Map<string, string>();
  const learnNames = async (): Promise<void> => {
    for (const { id, name } of await client.conversations({ includeGone: true })) names.set(id, name);
  };
  await learnNames();
  let told = 0;
  const stop = client.on((event) => {
    if (event.type === 'joined') names.set(event.conversation.id, event.conversation.name);
    if (event.type === 'message') arrived.resolve();
    else if (event.type !== 'connection') {
      if (event.type !== 'message-state' && event.type !== 'caught-up') told += 1;
      printEvent(out, event, (id) => names.get(id) ?? id.slice(0, 8));
    }
  });
  let shown = 0;
  try {
    await session.connected();
    await client.sync();
    for (;;) {
      arrived = Promise.withResolvers<void>();
      await learnNames();
      shown += await showUnseen(out, client, only?.id, names);
      if (shown >= wanted) break;
      await untilAborted(arrived.promise, signal);
    }
  } finally {
    stop();
  }
  if (shown === 0) out.say(told === 0 ? 'Nothing new.' : 'No new messages.');
  return { count: shown };
}

/** Prints unread messages and only then marks them, so that a crash in between shows one twice rather than never. */
export async function showUnseen(
  out: CommandContext['out'],
  client: Client,
  conversationId: string | undefined,
  names: ReadonlyMap<string, string> | undefined,
): Promise<number> {
  let shown = 0;
  for (;;) {
    const messages = await client.unseen({ limit: 100, ...(conversationId === undefined ? {} : { conversationId }) });
    if (messages.length === 0) return shown;
    for (const message of messages) {
      const name = names?.get(message.conversationId);
      printMessage(out, message, conversationId === undefined && name !== message.sender ? name : undefined);
    }
    await client.markSeen(messages.map((message) => message.localId));
    shown += messages.length;
  }
}

function count(input: CommandInput, option: string): number | undefined {
  const text = input.value(option);
  if (text === undefined) return undefined;
  if (!/^[1-9]\d{0,8}$/u.test(text))
    throw usageError(`--${option} takes a number from 1, not "${text}"`, 'write a whole number');
  return Number(text);
}
