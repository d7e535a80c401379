/** `--suite`: how the keys of a new conversation are exchanged. */
import type { Conversation, NewConversationOptions } from '@quicprochat/client/node';
import type { CommandInput, Option } from './command.ts';
import { usageError } from './errors.ts';
import type { Output } from './output.ts';

type SuiteName = NonNullable<NewConversationOptions['suite']>;

const NAMES: ReadonlyMap<string, SuiteName> = new Map([
  ['pq', 'post-quantum'],
  ['post-quantum', 'post-quantum'],
  ['classical', 'classical'],
  ['0x0001', 'classical'],
]);

export const SUITE_OPTION: Option = {
  name: 'suite',
  value: 'SUITE',
  summary: 'how its keys are exchanged: pq (the default) or classical (also 0x0001)',
};

/** @throws CliError for a value that is none */
export function suiteOptions(input: CommandInput): NewConversationOptions {
  const typed = input.value(SUITE_OPTION.name);
  if (typed === undefined) return {};
  const suite = NAMES.get(typed.toLowerCase());
  if (suite !== undefined) return { suite };
  throw usageError('there is no such suite', 'say --suite pq or --suite classical');
}

/** A conversation that exists already keeps the suite it was made with. */
export function warnOfOtherSuite(out: Output, { suite }: NewConversationOptions, { suiteName }: Conversation): void {
  if (suite === undefined || suiteName === undefined || suite === suiteName) return;
  const how = suite === 'post-quantum' ? '; "qpc group upgrade" moves it' : '';
  out.warn(`this conversation exists already and stays ${suiteName}${how}`);
}
