import { encodeHex } from '@quicprochat/crypto';
import { methods } from '@quicprochat/transport';
import { identityKey } from '../../checks.ts';
import { deviceHandler } from '../../handler.ts';
import { invalidArgument, notFound } from '../../refusals.ts';

/** Limited per requester and target, so that nobody can use up another's KeyPackages (THREATS 15). */
export const fetchKeyPackage = deviceHandler(
  methods.keys.fetchKeyPackage,
  async ({ server, session, writes }, request) => {
    const target = identityKey(request.identityKey);
    const { suite } = request;
    if (suite === 0 || suite > 0xffff) throw invalidArgument('a cipher suite is a number from 1 to 65535');
    const requester = encodeHex(session.address.identityKey);
    server.rates.take('keyPackagesOfOne', `${requester}:${encodeHex(target)}`);
    server.rates.take('keyPackages', requester);

    const nowMs = server.clock.wallMs();
    const outcome = await server.store.takeKeyPackages({ identityKey: target, suite, nowMs }, writes);
    if (outcome.kind === 'unknown_account') throw notFound('there is no account with this identity key');
    return {
      keyPackages: outcome.keyPackages.map(({ deviceId, keyPackage, lastResort }) => ({
        deviceId,
        keyPackage,
        lastResort,
      })),
      devicesWithout: [...outcome.devicesWithout],
    };
  },
);
