/**
 * The key that reports are sealed to. Only its public half is ever here: in the database, where `admin report-key` puts
 * it, or in a file that the configuration names, which then counts. The private half stays with the operator.
 */
import { decodeBase64Url, isReportKey, reportKeyId } from '@quicprochat/core';
import { encodeHex } from '@quicprochat/crypto';
import type { CryptoProvider } from '@quicprochat/crypto';
import { z } from 'zod';
import { conflict, invalidArgument } from '../refusals.ts';
import type { Store } from '../store/store.ts';
import { parseOperatorRequest } from './operations.ts';
import type { OperationHandlers } from './operations.ts';

const SETTING = 'report-key';

/** Shared with the server's context, so that a new key shows in Health at once. */
export interface ReportKeyHolder {
  publicKey: Uint8Array | undefined;
}

export interface ReportKeyReport {
  /** Undefined while there is none: then nobody can report. */
  readonly keyId: string | undefined;
  /** Of the key before, whose private half still opens older reports. */
  readonly previousKeyId?: string | undefined;
}

/** @param configured from a file; counts before the store's */
export async function openReportKey(store: Store, configured: Uint8Array | undefined): Promise<ReportKeyHolder> {
  return { publicKey: configured ?? (await store.getSetting(SETTING)) };
}

const setRequest = z.strictObject({ publicKey: z.string().max(4_096), replace: z.boolean() });

export function reportKeyHandlers(
  crypto: CryptoProvider,
  store: Store,
  holder: ReportKeyHolder,
  isConfigured: boolean,
  changed: (keyId: string) => void,
): OperationHandlers {
  const idOf = (key: Uint8Array | undefined) => key && encodeHex(reportKeyId(crypto, key));
  return new Map<string, (input: unknown) => Promise<ReportKeyReport>>([
    ['reportKey', () => Promise.resolve({ keyId: idOf(holder.publicKey) })],
    [
      'setReportKey',
      async (input) => {
        const request = parseOperatorRequest(setRequest, input);
        const publicKey = decodeBase64Url(request.publicKey);
        if (publicKey === undefined || !isReportKey(crypto, publicKey)) throw invalidArgument('that is no report key');
        const previousKeyId = idOf(holder.publicKey);
        if (isConfigured) {
          throw conflict(
            'the configuration names the report key',
            'Change the file of --report-key-file, or leave that out.',
          );
        }
        if (previousKeyId !== undefined && !request.replace) {
          throw conflict(
            'there is a report key already',
            'Its private half opens the reports that wait. To change it, give --replace.',
          );
        }
        await store.putSetting(SETTING, publicKey);
        holder.publicKey = publicKey;
        const keyId = encodeHex(reportKeyId(crypto, publicKey));
        changed(keyId);
        return { keyId, previousKeyId };
      },
    ],
  ]);
}
