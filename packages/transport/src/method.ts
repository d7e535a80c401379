// A method as the transport sees it: number, limits, message types. The table of the real ones is made
// from the .proto options in methods.ts; tests bring their own.
import type { DescMessage } from '@bufbuild/protobuf';

/** One RPC method with the options of DESIGN section 3. */
export interface MethodDescriptor<I extends DescMessage = DescMessage, O extends DescMessage = DescMessage> {
  /** method_id on the wire, 1–65535; 0 is Cancel. */
  readonly id: number;
  /** For logs and metrics: `qpc.v1.DeliveryService/Enqueue`. */
  readonly name: string;
  /** Largest encoded request, bytes. */
  readonly requestMax: number;
  /** Largest encoded response, bytes. */
  readonly responseMax: number;
  /** The server gives up after this; also the client's default. */
  readonly timeoutMs: number;
  /** Whether repeating it is harmless. */
  readonly idempotent: boolean;
  /** Whether it travels on the shared stream or on one of its own. */
  readonly stream: 'shared' | 'own';
  /** Who may call it, in the contract's own words; the server's hook interprets it. */
  readonly auth: string;
  readonly input: I;
  readonly output: O;
}
