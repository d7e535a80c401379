/** What the facade and the threads of the SQLite store say to each other. */
import type { DatabaseFile } from './sqlite-database.node.ts';
import type { ReadCalls } from './sqlite-reads.node.ts';
import type { WriteCalls } from './sqlite-writes.node.ts';
import { StoreError, type StoreErrorKind, type StoreLimits } from './store.ts';

export interface WriterData {
  readonly file: DatabaseFile;
  readonly limits: StoreLimits;
  /** Shared with the checkpointer; see `Signal`. */
  readonly signals: Int32Array<SharedArrayBuffer>;
}

/** Indexes into `signals`: commits made so far, and whether the checkpointer is to stop. */
export const Signal = { commits: 0, stop: 1 } as const;
export const SIGNALS = 2;

export interface WriteRequest {
  readonly id: number;
  readonly op: keyof WriteCalls;
  readonly input: unknown;
  readonly fairnessKey: string | number | undefined;
  /** Of all byte arrays in `input`. */
  readonly bytes: number;
}

export interface ReadRequest {
  readonly id: number;
  readonly op: keyof ReadCalls;
  readonly args: readonly unknown[];
}

export type ToWriter =
  | { readonly kind: 'writes'; readonly requests: readonly WriteRequest[] }
  | { readonly kind: 'close' };
export type ToReader =
  | { readonly kind: 'open' }
  | { readonly kind: 'reads'; readonly requests: readonly ReadRequest[] }
  | { readonly kind: 'close' };

/** A StoreError's parts: its class does not survive a structured clone. */
export interface Failure {
  readonly kind: StoreErrorKind;
  readonly message: string;
}

export type Answer = { readonly id: number } & ({ readonly value: unknown } | { readonly failure: Failure });

export type FromThread =
  | { readonly kind: 'ready'; readonly schemaVersion: number }
  | { readonly kind: 'unusable'; readonly failure: Failure }
  | { readonly kind: 'answers'; readonly answers: readonly Answer[] };

export function toFailure(error: StoreError): Failure {
  return { kind: error.kind, message: error.message };
}

export function fromFailure(failure: Failure): StoreError {
  return new StoreError(failure.kind, failure.message);
}
