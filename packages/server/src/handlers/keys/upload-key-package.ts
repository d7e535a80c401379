import { methods } from '@quicprochat/transport';
import { atMost, safeInteger } from '../../checks.ts';
import { deviceHandler } from '../../handler.ts';
import { deviceGone, exhausted, invalidArgument, tooLarge } from '../../refusals.ts';

const UPLOADS_MAX = 100;
// A fetch returns one per device of an account in at most 64 KiB.
const KEY_PACKAGE_BYTES_MAX = 12 * 1024;
// PROTOCOL 9: at most 90 days; a day for clocks that differ.
const LIFETIME_MS_MAX = 91 * 86_400_000;

export const uploadKeyPackage = deviceHandler(
  methods.keys.uploadKeyPackage,
  async ({ server, session, writes }, request) => {
    const nowMs = server.clock.wallMs();
    const keyPackages = atMost(request.keyPackages, UPLOADS_MAX, 'KeyPackages').map((upload) => {
      const { keyPackage, suite, lastResort } = upload;
      if (keyPackage.length === 0) throw invalidArgument('a KeyPackage is empty');
      if (keyPackage.length > KEY_PACKAGE_BYTES_MAX) {
        throw tooLarge(`a KeyPackage has at most ${KEY_PACKAGE_BYTES_MAX} bytes`);
      }
      if (suite === 0 || suite > 0xffff) throw invalidArgument('a cipher suite is a number from 1 to 65535');
      const notAfterMs = safeInteger(upload.notAfter, 'the end of a lifetime') * 1000;
      if (notAfterMs <= nowMs) throw invalidArgument('a KeyPackage has expired');
      if (notAfterMs > nowMs + LIFETIME_MS_MAX) throw invalidArgument('a KeyPackage lives at most 90 days');
      return { keyPackage, hash: server.crypto.hash('sha256', keyPackage), suite, notAfterMs, lastResort };
    });
    if (keyPackages.length === 0) return { added: 0 };
    const outcome = await server.store.uploadKeyPackages({ address: session.address, keyPackages, nowMs }, writes);
    switch (outcome.kind) {
      case 'stored':
        return { added: outcome.added };
      case 'full':
        throw exhausted(`the server keeps at most ${outcome.max} KeyPackages per device and suite`);
      case 'unknown_device':
        throw deviceGone();
    }
  },
);
