/**
 * Every label of the protocol, in one list (PROTOCOL, introduction; THREATS 22). A label separates the signatures, key
 * derivations and hashes of one purpose from those of all others: no two contexts share one, and none begins with
 * another, so that label ‖ data can be read in one way only.
 */
import { encodeUtf8 } from '@quicprochat/crypto';

/** MLS-Exporter labels (RFC 9420 section 8.5); the exporter takes them as text. */
export const ExporterLabel = {
  /** Keying material of type-03 envelopes (PROTOCOL 4). */
  envelope: 'qpc/v1/envelope',
  /** The channel's send token (PROTOCOL 6). */
  sendToken: 'qpc/v1/send-token',
} as const;

const TEXT = {
  // Signatures by the identity key.
  deviceCertificate: 'qpc/v1/device-certificate',
  registration: 'qpc/v1/registration',
  keyTransparencyStatement: 'qpc/v1/key-transparency-statement',
  // Signatures by the device key.
  hybridKey: 'qpc/v1/hybrid-key',
  endpoint: 'qpc/v1/endpoint',
  loginProof: 'qpc/v1/login-proof',
  resumeProof: 'qpc/v1/resume-proof',
  rejoinRequest: 'qpc/v1/rejoin-request',
  reportSignature: 'qpc/v1/report-signature',
  // By the identity key or the device key, as the method or the statement says.
  revocation: 'qpc/v1/revocation',
  signedRequest: 'qpc/v1/signed-request',
  // Signatures by the server's receipt key.
  receiptBatch: 'qpc/v1/receipt-batch',
  // A statement that is not signed itself, but in a batch of them.
  deliveryReceipt: 'qpc/v1/delivery-receipt',
  // Key derivations.
  kemEnvelopeKey: 'qpc/v1/kem-envelope-key',
  sharedContentKey: 'qpc/v1/shared-content-key',
  groupEnvelopeKey: 'qpc/v1/group-envelope-key',
  profileKey: 'qpc/v1/profile-key',
  reportSeal: 'qpc/v1/report-seal',
  // Hashes.
  logGenesis: 'qpc/v1/log-genesis',
  roster: 'qpc/v1/roster',
  safetyNumber: 'qpc/v1/safety-number',
  keyTransparencyCommitment: 'qpc/v1/key-transparency-commitment',
  keyTransparencyHistory: 'qpc/v1/key-transparency-history',
  keyTransparencyStart: 'qpc/v1/key-transparency-start',
} as const;

export type LabelName = keyof typeof TEXT;

function encodeAll(): Readonly<Record<LabelName, Uint8Array>> {
  const out: Partial<Record<LabelName, Uint8Array>> = {};
  for (const name of Object.keys(TEXT) as LabelName[]) out[name] = encodeUtf8(TEXT[name]);
  return out as Record<LabelName, Uint8Array>;
}

/** The labels as bytes. Never change one in place. */
export const Label: Readonly<Record<LabelName, Uint8Array>> = encodeAll();
