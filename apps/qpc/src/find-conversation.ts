/** From what a person types to a conversation: `#1a2b…` is an id or its beginning, `@bob` a person, else a name. */
import type { Client, Conversation } from '@quicprochat/client/node';
import { usageError } from './errors.ts';
import { toCliError } from './sdk-errors.ts';
import type { Session } from './session.ts';
import { isPlain } from './terminal-text.ts';

/** @throws CliError usage for an id that is not hexadecimal; ClientError when nothing or too much fits */
export async function findConversation(client: Client, reference: string): Promise<Conversation> {
  if (!isPlain(reference)) {
    throw usageError('the conversation holds control characters', 'type its name, @USER or #ID', 'bad-conversation');
  }
  if (!reference.startsWith('#')) return client.findConversation(reference);
  const id = reference.slice(1);
  if (!/^[0-9a-fA-F]{4,32}$/u.test(id)) {
    throw usageError(`"${reference}" is not an id`, 'write # and 4 to 32 hexadecimal digits', 'invalid-hex');
  }
  return client.findConversation(id.toLowerCase());
}

/** The same, but one that is not known yet may have come as an invitation that waits at the server. */
export async function findOrFetchConversation(
  session: Session,
  client: Client,
  reference: string,
): Promise<Conversation> {
  try {
    return await findConversation(client, reference);
  } catch (error) {
    if (toCliError(error).code !== 'unknown-conversation') throw error;
  }
  await session.connected();
  await client.sync();
  return findConversation(client, reference);
}

/** @throws CliError usage for a name that could not be shown as it is */
export function checkGroupName(name: string): void {
  if (name.trim() === '' || !isPlain(name)) {
    throw usageError(
      name.trim() === '' ? "the group's name is empty" : "the group's name holds control characters",
      'choose another name',
      'bad-group-name',
    );
  }
  if (name.startsWith('#') || name.startsWith('@')) {
    throw usageError("a group's name cannot begin with # or @", 'these mark ids and people', 'bad-group-name');
  }
}
