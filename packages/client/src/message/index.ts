/** What travels inside and as envelopes (PROTOCOL sections 4, 5 and 9). Pure functions over bytes. */
export * from './content.ts';
export * from './envelope-direct.ts';
export * from './envelope-group.ts';
export * from './envelope-shared.ts';
export { EnvelopeType, envelopeType, kindAgrees, PayloadKind } from './envelope.ts';
export * from './handshake-bundle.ts';
export * from './message-id.ts';
export * from './rejoin.ts';
export * from './tree-reference.ts';
export * from './welcome-body.ts';
