/** The portable surface. Providers are imported by name: `@quicprochat/crypto/node` or `@quicprochat/crypto/noble`. */
export * from './bytes.ts';
export * from './hpke.ts';
export * from './provider.ts';
