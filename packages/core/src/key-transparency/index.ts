/** Key transparency (PROTOCOL 7). docs/key-transparency.md shows how server and client use it. */
export * from './checkpoint.ts';
export * from './entry.ts';
export * from './merkle.ts';
export * from './mirror.ts';
export * from './proof.ts';
export * from './vrf.ts';
