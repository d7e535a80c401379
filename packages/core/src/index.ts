/** What client and server must agree on. Portable and synchronous; cryptography comes in as a provider. */
export * from './base64url.ts';
export * from './channel-hashes.ts';
export * from './device-certificate.ts';
export * from './display-text.ts';
export * from './endpoint.ts';
export * from './errors.ts';
export * from './hybrid-key.ts';
export * from './identity.ts';
export * from './key-transparency/index.ts';
export * from './labels.ts';
export * from './opaque.ts';
export * from './proofs.ts';
export * from './receipt.ts';
export * from './revocation.ts';
export * from './safety-number.ts';
export * from './statement.ts';
export * from './username.ts';
