import type { CommandContext } from '../command.ts';
import type { JsonFields } from '../output.ts';
export async function runDemo(_c: CommandContext, _o: { keep: boolean }): Promise<JsonFields> {
  return {};
}
