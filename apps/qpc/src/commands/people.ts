/** Other accounts: who is behind a name, and do their keys check out? Nothing here consumes a KeyPackage. */
import type { Command } from '../command.ts';
import { contactFields, time } from '../show.ts';
import { checkUsername } from './account.ts';

export const resolve: Command = {
  name: 'resolve',
  topic: 'People',
  summary: "show somebody's identity key and devices",
  details:
    'Verifies the certificates. The identity key is pinned when it is first seen; if it ever changes, this fails with exit ' +
    'code 5 rather than believing the server.',
  args: [{ name: 'USER', summary: 'the name to look up' }],
  inChat: true,
  run: async ({ out, session }, input) => {
    const name = input.word('USER');
    checkUsername(name);
    const client = await session.online();
    const contact = await client.resolve(name);
    out.say({ text: contact.username, style: 'bold' }, contact.pin === 'new' ? ' (seen for the first time)' : '');
    out.say('identity key  ', contact.identityKey);
    for (const device of contact.devices)
      out.say('device        ', device.deviceId, device.manager ? ' (manager)' : '');
    return contactFields(contact);
  },
};

export const checkKey: Command = {
  name: 'check-key',
  topic: 'People',
  summary: "verify all of somebody's keys",
  details:
    'Checks identity key, device certificates and hybrid keys, and that none has gone back to an older one. Consumes nothing.',
  args: [{ name: 'USER', summary: 'whose keys' }],
  inChat: true,
  run: async ({ out, session }, input) => {
    const name = input.word('USER');
    checkUsername(name);
    const client = await session.online();
    const { contact, devices } = await client.checkKey(name);
    const same = contact.pin === 'same' ? 'the same as before' : 'seen for the first time';
    out.say({ text: 'verified ', style: 'green' }, { text: contact.username, style: 'bold' }, `, identity key ${same}`);
    out.say('identity key  ', contact.identityKey);
    for (const device of devices) {
      const key = device.hybridKey;
      out.say(
        'device        ',
        device.deviceId,
        key ? `, hybrid key ${key.serial} until ${time(key.notAfterMs)}` : ', no hybrid key published',
      );
    }
    return {
      ...contactFields(contact),
      hybridKeys: devices.map(({ deviceId, hybridKey }) => ({
        deviceId,
        serial: hybridKey?.serial,
        notAfter: time(hybridKey?.notAfterMs),
      })),
    };
  },
};
