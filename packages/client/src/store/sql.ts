/** Between SQL and our types: typed readers of columns, and INSERT statements made from a table's columns. */
import type { SqlRow, SqlValue } from './driver.ts';
import { damaged } from './local-state-error.ts';

/** @throws LocalStateError `profile-damaged` when the column holds something else; likewise all readers here. */
export function bigintOf(row: SqlRow, column: string): bigint {
  const value = row[column];
  if (typeof value === 'bigint') return value;
  if (typeof value === 'number' && Number.isSafeInteger(value)) return BigInt(value);
  throw unexpected(column);
}

export function numberOf(row: SqlRow, column: string): number {
  const value = Number(bigintOf(row, column));
  if (!Number.isSafeInteger(value)) throw unexpected(column);
  return value;
}

export function booleanOf(row: SqlRow, column: string): boolean {
  return bigintOf(row, column) !== 0n;
}

export function textOf(row: SqlRow, column: string): string {
  const value = row[column];
  if (typeof value !== 'string') throw unexpected(column);
  return value;
}

export function bytesOf(row: SqlRow, column: string): Uint8Array {
  const value = row[column];
  if (!(value instanceof Uint8Array)) throw unexpected(column);
  return value;
}

/** `read(row, column)`, or undefined for NULL. */
export function optional<T>(read: (row: SqlRow, column: string) => T, row: SqlRow, column: string): T | undefined {
  return row[column] === null ? undefined : read(row, column);
}

/** A text column that holds one of a fixed set of words. */
export function wordOf<Word extends string>(row: SqlRow, column: string, words: readonly Word[]): Word {
  const value = textOf(row, column);
  const word = words.find((candidate) => candidate === value);
  if (word === undefined) throw unexpected(column);
  return word;
}

/** Columns of a table and how a record fills them. */
export interface Columns<RowType> {
  readonly names: readonly string[];
  /** In the order of `names`. */
  values(record: RowType): SqlValue[];
  /** INSERT of all columns, one parameter each. */
  insert(table: string): string;
  /** The same; a row with equal `key` columns is replaced, without being deleted first. */
  upsert(table: string, key: readonly string[]): string;
}

export function columns<RowType>(
  fill: Readonly<Record<string, (record: RowType) => SqlValue | undefined | boolean>>,
): Columns<RowType> {
  const names = Object.keys(fill);
  const readers = Object.values(fill);
  const insert = (table: string): string =>
    `INSERT INTO ${table} (${names.join(', ')}) VALUES (${names.map(() => '?').join(', ')})`;
  return {
    names,
    values: (record) => readers.map((read) => toSql(read(record))),
    insert,
    upsert: (table, key) => {
      const others = names.filter((name) => !key.includes(name)).map((name) => `${name} = excluded.${name}`);
      return `${insert(table)} ON CONFLICT (${key.join(', ')}) DO UPDATE SET ${others.join(', ')}`;
    },
  };
}

function toSql(value: SqlValue | undefined | boolean): SqlValue {
  if (value === undefined) return null;
  return typeof value === 'boolean' ? Number(value) : value;
}

function unexpected(column: string): Error {
  return damaged(`The profile's database holds an unexpected value (${column}).`);
}
