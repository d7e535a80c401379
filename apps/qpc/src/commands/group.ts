/** Groups: make, list, see who is in, invite, remove, leave, and say who may. */
import type { Client, Conversation, ConversationMember, Waiting } from '@quicprochat/client/node';
import type { Command, CommandContext } from '../command.ts';
import { usageError } from '../errors.ts';
import { checkGroupName, findConversation, findOrFetchConversation } from '../find-conversation.ts';
import type { Session } from '../session.ts';
import { conversationFields, conversationLine, memberLine, printEvent, typedName } from '../show.ts';
import { SUITE_OPTION, suiteOptions } from '../suite.ts';
import { checkUsername } from './account.ts';

const CONVERSATION = { name: 'CONVERSATION', summary: 'a group, @USER, or # and the beginning of its id' } as const;
const GROUP = { name: 'GROUP', summary: "the group's name, or # and the beginning of its id" } as const;

export const groupCreate: Command = {
  name: 'group create',
  topic: 'Groups',
  summary: 'make a group with only you in it, and invite people if you name them',
  args: [
    { name: 'NAME', summary: 'what to call it' },
    { name: 'USER', summary: 'whom to invite at once', optional: true, rest: true },
  ],
  options: [SUITE_OPTION],
  examples: ['qpc group create team', 'qpc group create "Book club" bob carol'],
  inChat: true,
  run: async ({ out, session, signal }, input) => {
    const users = input.words('USER');
    for (const user of users) checkUsername(user);
    checkGroupName(input.word('NAME'));
    const options = suiteOptions(input);
    const client = await session.online();
    const group = await client.createGroup(input.word('NAME'), options);
    out.say('Made ', { text: group.name, style: 'bold' }, ` (${group.id.slice(0, 8)}).`);
    if (users.length === 0) {
      out.say(`Next: qpc group invite ${typedName(group)} USER...`);
      return { conversation: conversationFields(group) };
    }
    const invited = await inviteAll({ out, signal }, client, group, users);
    if (invited.added.length > 0) out.say(`Invited ${invited.added.join(', ')}.`);
    for (const failure of invited.failed) out.warn(`${failure.username} was not invited: ${failure.reason}`);
    return { conversation: conversationFields(await client.findConversation(group.id)), ...invited };
  },
};

export const groupList: Command = {
  name: 'group list',
  topic: 'Groups',
  summary: 'list your groups; asks no server',
  options: [{ name: 'all', summary: 'also those you have left or were removed from' }],
  inChat: true,
  run: async ({ out, session }, input) => {
    const client = await session.profile();
    const all = await client.conversations({ includeGone: input.has('all') });
    const groups = all.filter((conversation) => conversation.kind === 'group');
    for (const group of groups) out.event('conversation', conversationFields(group), ...conversationLine(group));
    if (groups.length === 0) out.say('No groups yet. Make one with "qpc group create NAME".');
    return { count: groups.length };
  },
};

export const groupMembers: Command = {
  name: 'group members',
  topic: 'Groups',
  summary: 'list who is in a group, as far as this profile knows; asks no server',
  args: [GROUP],
  inChat: true,
  run: async ({ out, session }, input) => {
    const client = await session.profile();
    const conversation = await findConversation(client, input.word('GROUP'));
    const members = await client.members(conversation.id);
    for (const member of members) out.event('member', { ...member }, ...memberLine(member));
    if (conversation.suiteName !== undefined) {
      out.say({ text: `Keys are exchanged in the ${conversation.suiteName} suite.`, style: 'dim' });
    }
    return { conversation: conversationFields(conversation), count: members.length };
  },
};

export const groupInfo: Command = {
  name: 'group info',
  topic: 'Groups',
  summary: 'show what a conversation is: who is in it, how its keys are exchanged; asks no server',
  args: [CONVERSATION],
  inChat: true,
  run: async ({ out, session }, input) => {
    const client = await session.profile();
    const conversation = await findConversation(client, input.word('CONVERSATION'));
    const members = await client.members(conversation.id);
    out.say(...conversationLine(conversation));
    if (conversation.suiteName !== undefined) {
      out.say(
        conversation.suiteName === 'post-quantum'
          ? 'Post-quantum keys: protected against quantum computers too.'
          : `Classical keys.${howToUpgrade(conversation, members)}`,
      );
    }
    const admins = members.filter(({ admin }) => admin).map(({ username }) => username);
    if (conversation.kind === 'group' && admins.length > 0) out.say(`Administrators: ${admins.join(', ')}.`);
    return { conversation: conversationFields(conversation), admins };
  },
};

function howToUpgrade(conversation: Conversation, members: readonly ConversationMember[]): string {
  if (conversation.state !== 'active') return '';
  const command = `qpc group upgrade ${typedName(conversation)}`;
  const mayUpgrade = conversation.kind !== 'group' || members.some(({ self, admin }) => self && admin);
  return mayUpgrade
    ? ` To protect it against quantum computers too: ${command}`
    : ` An administrator can protect it against quantum computers too: ${command}`;
}

export const groupUpgrade: Command = {
  name: 'group upgrade',
  topic: 'Groups',
  summary: 'move a classical conversation to post-quantum keys, with everybody in it',
  details:
    'What was said stays readable, and nobody has to be online. It takes an administrator; in a conversation of two either ' +
    'of you. There is no way back.',
  args: [CONVERSATION],
  examples: ['qpc group upgrade team', 'qpc group upgrade @bob'],
  inChat: true,
  run: async ({ out, session }, input) => {
    const client = await session.online();
    const { id, kind, name } = await findOrFetchConversation(session, client, input.word('CONVERSATION'));
    const what = kind === 'direct' ? `The conversation with ${name}` : name;
    const stop = client.on((event) => {
      if (event.type === 'upgrade-progress' && event.conversationId === id) printEvent(out, event, () => name);
    });
    try {
      const outcome = await client.upgrade(id);
      out.say(
        outcome === 'already'
          ? `${what} has post-quantum keys already.`
          : `${what} has moved to post-quantum keys: it is protected against quantum computers too.`,
      );
      return { conversation: conversationFields(await client.findConversation(id)), outcome };
    } finally {
      stop();
    }
  },
};

export const groupInvite: Command = {
  name: 'group invite',
  topic: 'Groups',
  summary: 'add people to a group, several at once',
  details:
    'They join by themselves when their qpc next runs, even if they are offline now. They cannot read what was said before.',
  args: [GROUP, { name: 'USER', summary: 'whom to add', rest: true }],
  examples: ['qpc group invite team bob carol dave'],
  inChat: true,
  run: async ({ out, session, signal }, input) => {
    const users = input.words('USER');
    for (const user of users) checkUsername(user);
    const client = await session.online();
    const group = await findGroup(session, client, input.word('GROUP'));
    const invited = await inviteAll({ out, signal }, client, group, users);
    if (invited.added.length > 0) out.say(`Invited ${invited.added.join(', ')} to ${group.name}.`);
    for (const failure of invited.failed) out.warn(`${failure.username} was not invited: ${failure.reason}`);
    return { conversation: conversationFields(await client.findConversation(group.id)), ...invited };
  },
};

export const groupRemove: Command = {
  name: 'group remove',
  topic: 'Groups',
  summary: 'remove somebody, who cannot read anything from then on',
  args: [GROUP, { name: 'USER', summary: 'whom to remove' }],
  inChat: true,
  run: async ({ out, session }, input) => {
    const user = input.word('USER');
    checkUsername(user);
    const client = await session.online();
    const group = await findGroup(session, client, input.word('GROUP'));
    await client.removeMember(group.id, user);
    out.say(`Removed ${user} from ${group.name}.`);
    return { conversation: conversationFields(await client.findConversation(group.id)), removed: user };
  },
};

export const groupAdmin: Command = {
  name: 'group admin',
  topic: 'Groups',
  summary: 'make a member an administrator, who may invite and remove',
  args: [GROUP, { name: 'USER', summary: 'which member' }],
  options: [{ name: 'revoke', summary: 'take it away again' }],
  inChat: true,
  run: async ({ out, session }, input) => {
    const user = input.word('USER');
    const admin = !input.has('revoke');
    checkUsername(user);
    const client = await session.online();
    const group = await findGroup(session, client, input.word('GROUP'));
    await client.setAdmin(group.id, user, admin);
    out.say(`${user} is ${admin ? 'now' : 'no longer'} an administrator of ${group.name}.`);
    return { conversation: conversationFields(await client.findConversation(group.id)), username: user, admin };
  },
};

export const groupRename: Command = {
  name: 'group rename',
  topic: 'Groups',
  summary: 'give a group another name',
  args: [GROUP, { name: 'NAME', summary: 'the new name' }],
  inChat: true,
  run: async ({ out, session }, input) => {
    checkGroupName(input.word('NAME'));
    const client = await session.online();
    const group = await findGroup(session, client, input.word('GROUP'));
    await client.renameGroup(group.id, input.word('NAME'));
    await client.flush({ conversationId: group.id });
    out.say(`${group.name} is now called ${input.word('NAME')}.`);
    return { conversation: conversationFields(await client.findConversation(group.id)) };
  },
};

export const groupLeave: Command = {
  name: 'group leave',
  topic: 'Groups',
  summary: 'leave a group; its history stays readable here',
  details:
    "An administrator's qpc confirms it when it next runs. When the last administrator leaves, another member becomes one; " +
    'to choose whom, use "qpc group admin" first.',
  args: [GROUP],
  inChat: true,
  run: async ({ out, session }, input) => {
    const client = await session.online();
    const group = await findGroup(session, client, input.word('GROUP'));
    const outcome = await client.leave(group.id);
    out.say(
      outcome === 'left'
        ? `You have left ${group.name}.`
        : `Leaving ${group.name}: an administrator's qpc confirms it.`,
    );
    return { conversation: conversationFields(await client.findConversation(group.id)), outcome };
  },
};

interface Invited {
  readonly added: readonly string[];
  readonly failed: readonly { readonly username: string; readonly code: string; readonly reason: string }[];
}

/** Between two lines that say it waits: with many people there is a short wait for each. */
const TOLD_EVERY_MS = 5_000;

async function inviteAll(
  { out, signal }: Pick<CommandContext, 'out' | 'signal'>,
  client: Client,
  group: Conversation,
  users: readonly string[],
): Promise<Invited> {
  let toldAt = -Infinity;
  const waiting = ({ ms, reason }: Waiting): void => {
    const now = performance.now();
    if (now - toldAt < TOLD_EVERY_MS) return;
    toldAt = now;
    const seconds = Math.ceil(ms / 1000);
    if (out.json) out.event('waiting', { conversationId: group.id, ms: Math.ceil(ms), reason });
    else out.progress({ text: `(waiting ${seconds} s, the server limits this: ${reason})`, style: 'dim' });
  };
  const { added, failed } = await client.invite(group.id, users, { waiting, signal });
  return { added, failed };
}

async function findGroup(session: Session, client: Client, reference: string): Promise<Conversation> {
  const conversation = await findOrFetchConversation(session, client, reference);
  if (conversation.kind === 'group') return conversation;
  throw usageError(`${conversation.name} is not a group`, 'see "qpc group list" for your groups', 'not-a-group');
}
