import { methods } from '@quicprochat/transport';
import { safeInteger } from '../../checks.ts';
import { handler } from '../../handler.ts';
import { networkOf } from '../../rate-limits.ts';
import { invalidArgument } from '../../refusals.ts';

export const getConsistencyProof = handler(
  methods.keys.getConsistencyProof,
  async ({ server, connection }, request) => {
    const { size } = server.keyTransparency;
    const first = safeInteger(request.first, 'the first size');
    const second = request.second === 0n ? size : safeInteger(request.second, 'the second size');
    if (first < 1 || first > second || second > size) {
      throw invalidArgument('a consistency proof needs two sizes of this log, the smaller one first and above 0');
    }
    server.rates.take('logReads', networkOf(connection));
    return { proof: await server.keyTransparency.proveConsistency(first, second), second: BigInt(second) };
  },
);
