/**
 * Moving objects with many byte arrays between threads. A structured clone of a view copies its whole underlying buffer
 * (a 32-byte field of a decoded frame would drag 64 KiB along) and pays per buffer. `pack` copies all byte arrays of a
 * value into one buffer of their own, which is then transferred, not copied again.
 */

/** The same value with every Uint8Array a view of `arena`, which is undefined when there is none. */
export function pack<T>(value: T): { value: T; arena: ArrayBuffer | undefined } {
  const total = byteLengthOf(value);
  if (total === 0) return { value, arena: undefined };
  const arena = new ArrayBuffer(total);
  let offset = 0;
  const move = (part: unknown): unknown => {
    if (typeof part !== 'object' || part === null) return part;
    if (part instanceof Uint8Array) {
      const view = new Uint8Array(arena, offset, part.length);
      view.set(part);
      offset += part.length;
      return view;
    }
    if (Array.isArray(part)) return part.map(move);
    const moved: Record<string, unknown> = {};
    for (const key of Object.keys(part)) moved[key] = move((part as Record<string, unknown>)[key]);
    return moved;
  };
  return { value: move(value) as T, arena };
}

/** Bytes in all byte arrays of a value. */
function byteLengthOf(value: unknown): number {
  if (typeof value !== 'object' || value === null) return 0;
  if (value instanceof Uint8Array) return value.length;
  let total = 0;
  if (Array.isArray(value)) for (const part of value) total += byteLengthOf(part);
  else for (const key of Object.keys(value)) total += byteLengthOf((value as Record<string, unknown>)[key]);
  return total;
}
