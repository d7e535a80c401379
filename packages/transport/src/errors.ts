// How calls and connections fail. Status numbers are the contract's (`Status` of @quicprochat/proto).

// Indexed by status number.
const NAMES: readonly string[] = [
  'ok',
  'invalid argument',
  'unauthenticated',
  'forbidden',
  'not found',
  'already exists',
  'conflict',
  'exhausted',
  'too large',
  'rate limited',
  'unavailable',
  'unimplemented',
  'cancelled',
  'deadline exceeded',
  'internal',
];

/** The words of DESIGN for a status; `status N` for one we do not know. */
export function statusName(status: number): string {
  return NAMES[status] ?? `status ${status}`;
}

/**
 * A call that ended with a status other than ok. Thrown by a handler it becomes the answer as it is;
 * thrown by the client it is the answer received, or the client's own verdict (`local`).
 */
export class RpcError extends Error {
  override readonly name = 'RpcError';
  /** A `Status` number. */
  readonly status: number;
  /** What to do next, or empty. Like `message`, written by the peer unless `local`. */
  readonly hint: string;
  /** When trying again makes sense, milliseconds; 0 when unknown. */
  readonly retryAfterMs: number;
  /** True when this side decided (deadline, abort, too large to send), not the peer. */
  readonly local: boolean;

  constructor(
    status: number,
    message: string,
    options: { hint?: string; retryAfterMs?: number; local?: boolean } = {},
  ) {
    super(message === '' ? statusName(status) : message);
    this.status = status;
    this.hint = options.hint ?? '';
    this.retryAfterMs = options.retryAfterMs ?? 0;
    this.local = options.local ?? false;
  }
}

/**
 * The connection ended before the answer came. The call may or may not have run: repeat it only when
 * its method is idempotent.
 */
export class ConnectionLost extends Error {
  override readonly name = 'ConnectionLost';
  /** Application close code when the peer closed, see `CloseCode`; else 0. */
  readonly code: number;

  constructor(message: string, code = 0) {
    super(message);
    this.code = code;
  }
}

/**
 * Why no connection came about.
 * `refused`: nothing listens there, or the server turned us away; `timeout`: no answer;
 * `untrusted-certificate`: not signed by the trust anchor, or expired; `wrong-server-name`: a trusted
 * certificate for another name; `bad-address`: not an address or name we can use;
 * `bad-trust-anchor`: the certificate file is not one; `unsupported`: no QUIC on this machine;
 * `handshake`: anything else, such as a server that speaks another protocol.
 */
export type ConnectErrorKind =
  | 'refused'
  | 'timeout'
  | 'untrusted-certificate'
  | 'wrong-server-name'
  | 'bad-address'
  | 'bad-trust-anchor'
  | 'unsupported'
  | 'handshake';

export class ConnectError extends Error {
  override readonly name = 'ConnectError';
  readonly kind: ConnectErrorKind;

  constructor(kind: ConnectErrorKind, message: string) {
    super(message);
    this.kind = kind;
  }
}
