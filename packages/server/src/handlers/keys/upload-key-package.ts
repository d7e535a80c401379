import { encodeAddress } from '@quicprochat/core';
import { encodeHex } from '@quicprochat/crypto';
import { methods } from '@quicprochat/transport';
import { atMost, safeInteger } from '../../checks.ts';
import { deviceHandler, readInTurn } from '../../handler.ts';
import type { DeviceCall } from '../../handler.ts';
import { deviceGone, exhausted, invalidArgument, tooLarge } from '../../refusals.ts';
import type { KeyPackageUpload } from '../../store/store.ts';

const UPLOADS_MAX = 100;
// A fetch returns one per device of an account in at most 64 KiB.
const KEY_PACKAGE_BYTES_MAX = 12 * 1024;
// PROTOCOL 9: at most 90 days; a day for clocks that differ.
const LIFETIME_MS_MAX = 91 * 86_400_000;
// The shelf of a suite is bounded, and a client speaks two or three.
const SUITES_MAX = 16;

export const uploadKeyPackage = deviceHandler(methods.keys.uploadKeyPackage, async (call, request) => {
  const { server, session } = call;
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
  const lastResorts = keyPackages.filter((each) => each.lastResort);
  if (new Set(lastResorts.map((each) => each.suite)).size < lastResorts.length) {
    throw invalidArgument('a device has one last-resort KeyPackage per suite');
  }
  server.rates.take('keyPackageUploads', encodeHex(encodeAddress(session.address)));
  const outcome = await readInTurn(call, () => put(call, keyPackages, nowMs));
  switch (outcome.kind) {
    case 'stored':
      return { added: outcome.added };
    case 'full':
      throw exhausted(`the server keeps at most ${outcome.max} KeyPackages per device and suite`);
    case 'unknown_device':
      throw deviceGone();
  }
});

// In the device's turn, so that two uploads cannot both find room for the last suite.
async function put({ server, session, writes }: DeviceCall, keyPackages: readonly KeyPackageUpload[], nowMs: number) {
  const { address } = session;
  const counts = await server.store.countKeyPackages(address, nowMs);
  const suites = new Set([...counts, ...keyPackages].map((each) => each.suite));
  if (suites.size > SUITES_MAX) {
    throw exhausted(`the server keeps KeyPackages of at most ${SUITES_MAX} suites per device`);
  }
  return server.store.uploadKeyPackages({ address, keyPackages, nowMs }, writes);
}
