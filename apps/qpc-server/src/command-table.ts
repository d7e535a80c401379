/** All commands, in the order help shows them. */
import type { Command } from './command.ts';
import { ADMIN_COMMANDS } from './commands/admin.ts';
import { backup } from './commands/backup.ts';
import { restore } from './commands/restore.ts';
import { start } from './commands/start.ts';
import { status } from './commands/status.ts';

export const COMMANDS: readonly Command[] = [start, status, ...ADMIN_COMMANDS, backup, restore];
