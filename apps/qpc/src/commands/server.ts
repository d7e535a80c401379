/** Is the server there, and what does it say of itself? Neither needs an account. */
import type { Command } from '../command.ts';
import { time } from '../show.ts';

export const ping: Command = {
  name: 'ping',
  topic: 'Server',
  summary: 'measure the time to the server and back',
  details: 'Connects, checks the certificate and asks the server once. Needs no account and changes nothing.',
  examples: ['qpc ping', 'qpc ping --server chat.example.org:5001'],
  inChat: true,
  run: async ({ out, session }) => {
    const client = await session.memory();
    const roundTripMs = await client.ping();
    const server = await session.serverLabel();
    out.say(`${server} answered in ${roundTripMs.toFixed(1)} ms`);
    return { server, roundTripMs };
  },
};

export const health: Command = {
  name: 'health',
  topic: 'Server',
  summary: "show the server's version, origin and state",
  examples: ['qpc health --json'],
  inChat: true,
  run: async ({ out, session }) => {
    const client = await session.memory();
    const { timeMs, ...report } = await client.health();
    out.say('server      ', await session.serverLabel());
    out.say('origin      ', report.origin);
    out.say('version     ', report.version);
    out.say('running for ', duration(report.uptimeSeconds));
    out.say('store       ', { text: report.store, style: report.store === 'ok' ? 'green' : 'red' });
    out.say('its clock   ', time(timeMs) ?? 'unknown');
    out.say('round trip  ', `${report.roundTripMs.toFixed(1)} ms`);
    return { server: await session.serverLabel(), ...report, time: time(timeMs) };
  },
};

function duration(seconds: number): string {
  const days = Math.floor(seconds / 86_400);
  const hours = Math.floor((seconds % 86_400) / 3600);
  const minutes = Math.floor((seconds % 3600) / 60);
  if (days > 0) return `${days} d ${hours} h`;
  if (hours > 0) return `${hours} h ${minutes} min`;
  return minutes > 0 ? `${minutes} min` : `${Math.floor(seconds)} s`;
}
