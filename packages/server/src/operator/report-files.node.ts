/**
 * The operator's end of reports: a key pair in two files, and reports read with the private one. The private key is
 * nothing the server needs; it belongs where the reports are read.
 */
import { closeSync, fsyncSync, openSync, readFileSync, statSync, unlinkSync, writeSync } from 'node:fs';
import path from 'node:path';
import {
  decodeBase64Url,
  displayText,
  encodeBase64Url,
  generateReportKey,
  openReport,
  REPORT_PRIVATE_KEY_BYTES,
} from '@quicprochat/core';
import { decodeHex, encodeHex } from '@quicprochat/crypto';
import { nodeCrypto } from '@quicprochat/crypto/node';
import { reasonOf } from '../data-directory.node.ts';
import { StartupError } from '../startup-error.ts';
import type { AccountDetails, SealedReport } from './operations.ts';

/**
 * Writes the private key to a new file that only its owner reads, and the public one beside it with `.pub`.
 * @returns the public key, base64url
 * @throws StartupError when there is such a file already, or it cannot be written
 */
export function writeReportKeyFiles(file: string): { readonly publicKey: string; readonly publicKeyPath: string } {
  const { privateKey, publicKey } = generateReportKey(nodeCrypto);
  const publicText = encodeBase64Url(publicKey);
  const publicKeyPath = `${path.resolve(file)}.pub`;
  try {
    writeNew(file, `${encodeBase64Url(privateKey)}\n`, 0o600);
    try {
      writeNew(publicKeyPath, `${publicText}\n`, 0o644);
    } catch (error) {
      unlinkSync(file);
      throw error;
    }
  } catch (error) {
    const exists = error instanceof Error && 'code' in error && error.code === 'EEXIST';
    const reason = exists ? 'there is such a file already' : reasonOf(error);
    throw new StartupError('data', `${file} cannot be written: ${reason}`, 'Name a new file with --out.', {
      cause: error,
    });
  } finally {
    nodeCrypto.wipe(privateKey);
  }
  return { publicKey: publicText, publicKeyPath };
}

function writeNew(file: string, content: string, mode: number): void {
  const handle = openSync(file, 'wx', mode);
  try {
    writeSync(handle, content);
    fsyncSync(handle);
  } finally {
    closeSync(handle);
  }
}

/** @throws StartupError when the file holds no private key, or others can read it */
export function readReportPrivateKey(file: string): Uint8Array {
  let content: string;
  try {
    const { mode } = statSync(file);
    if (process.platform !== 'win32' && (mode & 0o077) !== 0) {
      throw new StartupError('data', `${file} can be read by other users`, `Take their access away: chmod 600 ${file}`);
    }
    content = readFileSync(file, 'utf8');
  } catch (error) {
    if (error instanceof StartupError) throw error;
    throw new StartupError('data', `${file} cannot be read: ${reasonOf(error)}`, 'Check --key.', { cause: error });
  }
  const key = decodeBase64Url(content.trim());
  if (key?.length === REPORT_PRIVATE_KEY_BYTES) return key;
  throw new StartupError('data', `${file} holds no private report key`, 'Name the file that admin report-key wrote.');
}

/** A report in words. All text in it comes from users and has been made safe for a terminal. */
interface ReadReport {
  readonly reporter: { readonly username: string; readonly identityKey: string; readonly deviceId: string };
  /** Whether the device that it names has signed it; `unknown`: that account or device is gone. */
  readonly signature: 'valid' | 'invalid' | 'unknown';
  readonly reportedAtMs: number;
  readonly reason: string;
  readonly messages: readonly {
    readonly sender: string;
    readonly senderIdentityKey: string;
    readonly contentId: string;
    readonly sentAtMs: number;
    readonly text: string;
  }[];
}

export type ReadReportOutcome =
  | { readonly kind: 'read'; readonly report: ReadReport }
  | { readonly kind: 'other_key'; readonly keyId: string }
  | { readonly kind: 'malformed' };

/** @param accountOf the account of an identity key, undefined when there is none */
export async function readReport(
  sealed: SealedReport,
  origin: string,
  reportPrivateKey: Uint8Array,
  accountOf: (identityKey: string) => Promise<AccountDetails | undefined>,
): Promise<ReadReportOutcome> {
  const outcome = openReport(nodeCrypto, {
    reportPrivateKey,
    origin,
    channelId: decodeHex(sealed.conversationId) ?? new Uint8Array(0),
    report: decodeBase64Url(sealed.report) ?? new Uint8Array(0),
  });
  if (outcome.kind === 'other_key') return { kind: 'other_key', keyId: encodeHex(outcome.keyId) };
  if (outcome.kind === 'malformed') return outcome;
  const { reporter, reporterUsername, reportedAtMs, reason, messages } = outcome.content;
  const account = await accountOf(encodeHex(reporter.identityKey));
  const device = account?.devices.find((each) => each.deviceId === encodeHex(reporter.deviceId));
  const deviceKey = device && decodeHex(device.deviceKey);
  const isTheirs = account?.username === reporterUsername && deviceKey && outcome.isSignedBy(deviceKey);
  return {
    kind: 'read',
    report: {
      reporter: {
        username: displayText(reporterUsername),
        identityKey: encodeHex(reporter.identityKey),
        deviceId: encodeHex(reporter.deviceId),
      },
      signature: deviceKey === undefined ? 'unknown' : isTheirs === true ? 'valid' : 'invalid',
      reportedAtMs,
      reason: displayText(reason),
      messages: messages.map((message) => ({
        sender: displayText(message.senderUsername),
        senderIdentityKey: encodeHex(message.senderIdentity),
        contentId: encodeHex(message.contentId),
        sentAtMs: message.sentAtMs,
        text: displayText(message.text),
      })),
    },
  };
}
