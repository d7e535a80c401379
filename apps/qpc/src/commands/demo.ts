/** `qpc demo`: the whole product in one command. */
import type { Command } from '../command.ts';

export const demo: Command = {
  name: 'demo',
  topic: 'Start here',
  summary: 'watch four people chat through a server of their own',
  details:
    'Starts a server on a free port in a temporary folder, then Alice, Bob, Carol and Dave as separate processes. Checks ' +
    'every step and ends with exit code 1 if one fails. Touches nothing outside its folder and removes it at the end.',
  options: [{ name: 'keep', summary: 'keep the folder, to look at what the server has' }],
  examples: ['qpc demo', 'qpc demo --json'],
  run: async (context, input) => {
    const { runDemo } = await import('../demo/demo.ts');
    return runDemo(context, { keep: input.has('keep') });
  },
};
