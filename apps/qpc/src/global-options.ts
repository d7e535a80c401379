/** The flags every command understands, as data: parsing and help are made from this list. */
import type { Option } from './command.ts';
import { DEFAULT_SERVER } from './settings.ts';

export const GLOBAL_OPTIONS: readonly Option[] = [
  { name: 'server', value: 'HOST:PORT', summary: `the server (QPC_SERVER; default ${DEFAULT_SERVER})` },
  { name: 'ca-cert', value: 'FILE', summary: "the server's certificate or its issuer's, PEM or DER (QPC_CA_CERT)" },
  { name: 'server-name', value: 'NAME', summary: "the name in the server's certificate, if not the host" },
  {
    name: 'profile',
    value: 'NAME',
    summary: 'which of your profiles on this machine (QPC_PROFILE; default "default")',
  },
  { name: 'state', value: 'FOLDER', summary: "the profile's folder itself (QPC_STATE)" },
  { name: 'username', value: 'NAME', summary: 'the account name, for register-user and login' },
  { name: 'password-stdin', summary: "read the account's password from the first line of standard input" },
  { name: 'password-file', value: 'FILE', summary: "read the account's password from a file" },
  { name: 'password', value: 'PASSWORD', summary: "the account's password, visible to others (or QPC_PASSWORD)" },
  { name: 'state-password-stdin', summary: "read the profile's own password from standard input" },
  { name: 'state-password-file', value: 'FILE', summary: "read the profile's own password from a file" },
  { name: 'state-password', value: 'PASSWORD', summary: "the profile's own password (or QPC_STATE_PASSWORD)" },
  { name: 'timeout', value: 'TIME', summary: 'give up after this long: 30, 500ms, 2m (exit code 124)' },
  { name: 'json', summary: 'one JSON object a line, for programs' },
  { name: 'no-color', summary: 'no colour (also NO_COLOR; never any when not on a terminal)' },
  { name: 'help', summary: 'explain the command' },
  { name: 'version', summary: 'print the version' },
];

/** Their values as typed; what is absent was not given. */
export class GlobalOptions {
  readonly #values: ReadonlyMap<string, string | true>;

  constructor(values: ReadonlyMap<string, string | true> = new Map()) {
    this.#values = values;
  }

  has(name: string): boolean {
    return this.#values.has(name);
  }

  value(name: string): string | undefined {
    const value = this.#values.get(name);
    return value === true ? undefined : value;
  }
}
