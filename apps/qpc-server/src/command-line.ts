/** The flags of `qpc-server`, made from the configuration's own table, so that help and schema never differ. */
import { SETTINGS } from '@quicprochat/server';
import type { Setting } from '@quicprochat/server';
import { Command, Option } from 'commander';

const SWITCHES = new Set(['production', 'pushPrivate', 'allowSealedSender']);

export function commandLine(version: string): Command {
  const program = new Command('qpc-server')
    .description('The quicprochat server: carries end-to-end encrypted messages that it cannot read.')
    .version(version, '--version', 'print the version')
    .helpOption('--help', 'print this')
    .option('--config <file>', 'TOML file with any of the settings below (QPC_CONFIG)')
    .option('--json', 'print a machine-readable line when ready, and for errors')
    .configureHelp({ helpWidth: 120 })
    .configureOutput({ writeErr: () => {}, outputError: () => {} })
    .exitOverride()
    .allowExcessArguments(false);
  for (const setting of SETTINGS) program.addOption(optionOf(setting));
  program.addHelpText(
    'after',
    `
Each setting is also a variable, --data-dir being QPC_DATA_DIR, and a key of the file, --limits-inbox-bytes being
inbox_bytes under [limits]. A flag counts before a variable, a variable before the file.

Exit codes: 0 stopped when asked, 1 a fault of ours, 2 configuration, 3 cannot listen, 6 the data folder.`,
  );
  return program;
}

function optionOf(setting: Setting): Option {
  const { flag, description, path, standard } = setting;
  const text = standard === undefined ? description : `${description} (default: ${standard})`;
  return new Option(SWITCHES.has(path) ? flag : `${flag} <value>`, text);
}

/** The flags that were given, by `Setting.path`. */
export function flagsOf(program: Command): Record<string, unknown> {
  const given = program.opts<Record<string, unknown>>();
  return Object.fromEntries(
    SETTINGS.flatMap((setting) => {
      const value = given[optionOf(setting).attributeName()];
      return value === undefined ? [] : [[setting.path, value]];
    }),
  );
}
