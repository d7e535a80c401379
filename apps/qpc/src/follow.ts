/**
 * `qpc recv --follow`: one process that holds the profile, shows what comes and sends what is typed. Three sources meet
 * here, all event-driven: SDK events, lines of standard input, and the signal that ends it.
 *
 *   events  → shown in order, one at a time (a message is marked as seen after it was printed)
 *   lines   → sent to the conversation, or run as /commands, one at a time
 */
import { untilAborted } from './abort.ts';
import type { Client, ClientEvent, Conversation } from '@quicprochat/client/node';
import type { CommandContext } from './command.ts';
import { COMMANDS } from './command-table.ts';
import { sendQueued, showUnseen } from './commands/messages.ts';
import { CliError, ExitCode } from './errors.ts';
import { findOrFetchConversation } from './find-conversation.ts';
import { chatHelp } from './help.ts';
import type { JsonFields } from './output.ts';
import { parseChatLine } from './parse.ts';
import { toCliError } from './sdk-errors.ts';
import { conversationFields, printEvent } from './show.ts';

/**
 * Stays until the signal ends it or, with a conversation, until standard input ends.
 * @throws CliError `not-logged-in` when the server has ended the session: revoked, or asked to log in again;
 *   `session-refused` when it refuses it: banned
 */
export async function follow(context: CommandContext, reference: string | undefined): Promise<JsonFields> {
  const { out, session } = context;
  const ended = new AbortController();
  // Without a session nothing comes any more, and logging in needs the profile that this process holds.
  const signal = AbortSignal.any([context.signal, ended.signal]);
  const client = await session.account();
  session.listens = true;
  const conversation = reference === undefined ? undefined : await findOrFetchConversation(session, client, reference);
  const screen = new Screen(context, client, conversation);
  let refusal: string | undefined;
  const stop = client.on((event) => {
    screen.push(event);
    if (event.type !== 'warning') return;
    if (event.code === 'session-refused') refusal = event.text;
    if (event.code === 'session-ended' || event.code === 'session-refused') ended.abort();
  });
  try {
    // The chat is usable while the server is away: what is typed is kept, and goes out when it is back.
    await session.keepConnecting();
    if (conversation) {
      out.event('following', conversationFields(conversation), {
        text: `Chatting in ${conversation.name}. /help for commands, Ctrl+D to end.`,
        style: 'dim',
      });
      screen.start();
      await sendLines({ ...context, signal }, client, conversation);
      await untilAborted(sendQueued(session, client, conversation.id), signal);
      await screen.drained();
    } else {
      out.event('following', {}, { text: 'Waiting for messages. Ctrl+C to end.', style: 'dim' });
      screen.start();
      await untilAborted(new Promise<never>(() => {}), signal);
    }
    return { count: screen.shown };
  } catch (error) {
    if (!ended.signal.aborted || context.signal.aborted) throw error;
    screen.start();
    await screen.drained();
    if (refusal !== undefined) {
      const hint = 'what was not sent is kept, and goes out when the server lets you in again; that takes no password';
      throw new CliError(ExitCode.refused, 'session-refused', refusal, hint);
    }
    // Says that it is logged out, and how to log in.
    await session.account();
    throw error;
  } finally {
    stop();
  }
}

async function sendLines(context: CommandContext, client: Client, conversation: Conversation): Promise<void> {
  const { out, lines, signal } = context;
  for (;;) {
    try {
      const line = await lines.next(signal);
      if (line === undefined || line === '/quit') return;
      if (line === '') continue;
      if (line.startsWith('/') && !line.startsWith('//')) await runChatCommand(context, line.slice(1));
      else await sendLine(context, client, conversation, line.startsWith('//') ? line.slice(1) : line);
    } catch (error) {
      signal.throwIfAborted();
      // One line that cannot be sent does not end the chat.
      const failure = toCliError(error);
      const { code, message, hint } = failure;
      if (out.json) out.event('failed', { code, message, hint });
      else out.complain(failure);
    }
  }
}

/** Queued at once; what becomes of it is told by `message-state` events, so that typing never waits for the server. */
async function sendLine(
  { out }: CommandContext,
  client: Client,
  conversation: Conversation,
  text: string,
): Promise<void> {
  const message = await client.send(conversation.id, text);
  out.event('queued', { conversationId: conversation.id, contentId: message.contentId, localId: message.localId });
}

async function runChatCommand(context: CommandContext, line: string): Promise<void> {
  const { out } = context;
  if (line.trim() === 'help') {
    for (const row of chatHelp(COMMANDS)) out.say(row);
    out.event('done', { command: 'help' });
    return;
  }
  const parsed = parseChatLine(line, COMMANDS);
  if (parsed.kind !== 'command') {
    if (parsed.kind === 'help') for (const row of parsed.text.trimEnd().split('\n')) out.say(row);
    out.event('done', { command: 'help' });
    return;
  }
  const fields = await parsed.command.run(context, parsed.input);
  out.event('done', { command: parsed.command.name, ...fields });
}

/** Shows events one after another. */
class Screen {
  shown = 0;
  readonly #context: CommandContext;
  readonly #client: Client;
  readonly #conversation: Conversation | undefined;
  readonly #names = new Map<string, string>();
  readonly #announced = new Set<string>();
  #tail: Promise<void> = Promise.resolve();
  #started = false;
  #waiting: ClientEvent[] = [];

  constructor(context: CommandContext, client: Client, conversation: Conversation | undefined) {
    this.#context = context;
    this.#client = client;
    this.#conversation = conversation;
  }

  push(event: ClientEvent): void {
    if (!this.#started) this.#waiting.push(event);
    else this.#enqueue(() => this.#show(event));
  }

  /** First what was unread before, then what has come meanwhile. */
  start(): void {
    if (this.#started) return;
    this.#started = true;
    this.#enqueue(() => this.#showUnseen());
    for (const event of this.#waiting) this.#enqueue(() => this.#show(event));
    this.#waiting = [];
  }

  /** Everything that has come so far is on the screen. */
  async drained(): Promise<void> {
    await this.#tail;
  }

  #enqueue(task: () => Promise<void>): void {
    const { out, signal } = this.#context;
    this.#tail = this.#tail.then(task).catch((error: unknown) => {
      if (!signal.aborted) out.complain(toCliError(error));
    });
  }

  async #show(event: ClientEvent): Promise<void> {
    const { out } = this.#context;
    switch (event.type) {
      case 'message':
        if (!event.message.own) await this.#showUnseen();
        return;
      case 'message-state': {
        const { message } = event;
        const fields = {
          conversationId: message.conversationId,
          contentId: message.contentId,
          localId: message.localId,
          ...(message.undelivered.length > 0 ? { undelivered: message.undelivered } : {}),
        };
        if (out.json) out.event(message.state === 'sent' ? 'sent' : 'not-sent', fields);
        else if (message.state === 'failed') out.warn(`not sent: ${message.text}`);
        if (!out.json)
          for (const row of message.undelivered) out.warn(`not delivered to ${row.username} (${row.reason})`);
        return;
      }
      default:
        await this.#learnNames();
        printEvent(out, event, (id) => this.#names.get(id) ?? id.slice(0, 8));
    }
  }

  async #showUnseen(): Promise<void> {
    await this.#learnNames();
    const { out } = this.#context;
    this.shown += await showUnseen(out, this.#client, this.#conversation?.id, this.#names);
    if (!this.#conversation) return;
    // Other conversations stay unread for `qpc recv`; say once that there is something.
    for (const other of await this.#client.conversations()) {
      if (other.id === this.#conversation.id || other.unseenCount === 0 || this.#announced.has(other.id)) continue;
      this.#announced.add(other.id);
      out.event(
        'unread',
        { conversationId: other.id, name: other.name, count: other.unseenCount },
        { text: `* new message in ${other.name}: qpc recv, after this chat`, style: 'dim' },
      );
    }
  }

  async #learnNames(): Promise<void> {
    for (const { id, name } of await this.#client.conversations({ includeGone: true })) this.#names.set(id, name);
  }
}
