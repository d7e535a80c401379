/** All commands, in the order help shows them. */
import type { Command } from './command.ts';
import { checkKey, resolve } from './commands/people.ts';
import { deleteAccount, login, logout, refreshKeypackage, registerUser, whoami } from './commands/account.ts';
import { demo } from './commands/demo.ts';
import {
  groupAdmin,
  groupCreate,
  groupInfo,
  groupInvite,
  groupLeave,
  groupList,
  groupMembers,
  groupRemove,
  groupRename,
  groupUpgrade,
} from './commands/group.ts';
import { dm, history, join, recv, report, send } from './commands/messages.ts';
import { health, ping } from './commands/server.ts';
import { audit, resume } from './commands/transparency.ts';

export const COMMANDS: readonly Command[] = [
  demo,
  registerUser,
  dm,
  send,
  recv,
  history,
  report,
  join,
  resume,
  groupCreate,
  groupInvite,
  groupInfo,
  groupMembers,
  groupList,
  groupRemove,
  groupAdmin,
  groupRename,
  groupUpgrade,
  groupLeave,
  resolve,
  checkKey,
  audit,
  whoami,
  login,
  logout,
  refreshKeypackage,
  deleteAccount,
  ping,
  health,
];
