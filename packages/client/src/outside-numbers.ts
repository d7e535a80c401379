/** What numbers from outside must keep to, so that the database can hold them and a calendar can show them. */

/** The last moment a JavaScript Date can be, milliseconds since 1970 (ECMA-262, "Time Values and Time Range"). */
export const TIME_MS_MAX = 8_640_000_000_000_000;
/** SQLite's integers are signed. */
const STORED_INTEGER_MAX = 2n ** 63n - 1n;

/** A time the server tells; undefined when it is none. */
export function serverTime(ms: bigint): number | undefined {
  return ms > 0n && ms <= BigInt(TIME_MS_MAX) ? Number(ms) : undefined;
}

/** Whether the database can hold an unsigned 64-bit number, such as a position or a serial number. */
export function isStorable(value: bigint): boolean {
  return value >= 0n && value <= STORED_INTEGER_MAX;
}
