import type { Call } from '../../handler.ts';

/**
 * Counts an evaluation of a password before it is done. At registration as well as at login: whoever has one answer to a
 * login tries passwords against it with either. By the name as it was sent, whether or not it is somebody's (THREATS 20).
 * @param name of an account's form: that bounds the key
 * @throws RpcError `rate limited`
 */
export function countPasswordAttempt({ server, connection }: Call, name: string): void {
  const { network } = connection.state;
  server.rates.take('passwords', network);
  server.rates.take('passwordsOfOne', `${name} ${network}`);
}
