/**
 * GREASE (RFC 9420 section 13.5): values without meaning in lists where others must ignore what they do not know, so that
 * a client that does not is found early. Receiving them takes no code at all.
 */
import type { Capabilities, Extension, MlsContext } from './types.ts';

/** 0x0A0A, 0x1A1A … 0xEAEA */
function greaseValue({ random }: MlsContext): number {
  const high = random(1)[0]! % 15;
  return 0x101 * ((high << 4) | 0x0a);
}

/** Whether a value means nothing: then a list that names it says nothing, and nothing of that type may be sent. */
export function isGrease(value: number): boolean {
  return (value & 0x0f0f) === 0x0a0a && value >>> 8 === (value & 0xff) && value !== 0xfafa;
}

/** An extension that means nothing, for a leaf, a KeyPackage or a GroupInfo; never for a GroupContext. */
export function greaseExtension(context: MlsContext): Extension {
  const length = context.random(1)[0]! & 0x0f;
  return { extensionType: greaseValue(context), extensionData: context.random(length) };
}

/** With one more value in every list that may have one, when asked for. */
export function greasedCapabilities(
  context: MlsContext,
  wanted: boolean | undefined,
  capabilities: Capabilities,
): Capabilities {
  if (!wanted) return capabilities;
  const greased = (values: readonly number[]): number[] => [...new Set([...values, greaseValue(context)])];
  return {
    versions: capabilities.versions,
    cipherSuites: greased(capabilities.cipherSuites),
    extensions: greased(capabilities.extensions),
    proposals: greased(capabilities.proposals),
    credentials: greased(capabilities.credentials),
  };
}
