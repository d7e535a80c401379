/**
 * The webhook notifier: one HTTPS POST to an address the device chose. Users choose where our requests go, so this is the
 * one place where the server could be made to talk to its own network (SSRF). Therefore, unless the operator allows
 * private networks: HTTPS only, ports 443 and above 1023, and public addresses only. The check is made on the address
 * that is connected to, after name resolution, so that a name which changes its mind gains nothing. Redirects are not
 * followed, answers are not read, and nothing of them reaches the user.
 */
import http from 'node:http';
import https from 'node:https';
import { lookup } from 'node:dns';
import { BlockList, isIP } from 'node:net';
import type { LookupFunction } from 'node:net';
import type { PushNotifier } from './push-notifier.ts';

const TIMEOUT_MS = 10_000;
const BODY = Buffer.from('{"v":1,"type":"wake"}');

export interface WebhookOptions {
  /** Also plain HTTP, any port, and addresses of this machine and of private networks. */
  readonly allowPrivate: boolean;
}

export function createWebhookNotifier({ allowPrivate }: WebhookOptions): PushNotifier {
  return {
    objectionTo: (token) => objectionTo(token, allowPrivate),
    notify: (token) =>
      objectionTo(token, allowPrivate) === undefined
        ? post(new URL(token), allowPrivate ? undefined : publicOnly)
        : Promise.resolve('gone'),
  };
}

function objectionTo(token: string, allowPrivate: boolean): string | undefined {
  const url = URL.parse(token);
  if (url === null) return 'it is not a URL';
  if (url.protocol !== 'https:' && !(allowPrivate && url.protocol === 'http:')) return 'it must begin with https://';
  if (url.username !== '' || url.password !== '') return 'it must not hold a password';
  if (allowPrivate) return undefined;
  const port = url.port === '' ? 443 : Number(url.port);
  if (port !== 443 && port < 1024) return 'its port must be 443 or above 1023';
  // A literal address is connected to without any look-up.
  const host = url.hostname.replace(/^\[|\]$/g, '');
  return isIP(host) !== 0 && !isPublic(host) ? 'its address is not a public one' : undefined;
}

function post(url: URL, lookup: LookupFunction | undefined): Promise<'sent' | 'failed' | 'gone'> {
  return new Promise((resolve) => {
    const { request } = url.protocol === 'http:' ? http : https;
    const sent = request(
      url,
      {
        method: 'POST',
        headers: { 'content-type': 'application/json', 'content-length': BODY.length },
        agent: false,
        signal: AbortSignal.timeout(TIMEOUT_MS),
        ...(lookup === undefined ? {} : { lookup }),
      },
      (response) => {
        const { statusCode = 0 } = response;
        response.destroy();
        if (statusCode >= 200 && statusCode < 300) resolve('sent');
        else resolve(statusCode === 404 || statusCode === 410 ? 'gone' : 'failed');
      },
    );
    sent.on('error', () => resolve('failed'));
    sent.end(BODY);
  });
}

/** As dns.lookup, without addresses that are not public. */
const publicOnly: LookupFunction = (hostname, options, callback) => {
  lookup(hostname, { ...options, all: true }, (error, addresses) => {
    const found = (error === null ? addresses : []).filter(({ address }) => isPublic(address));
    const [first] = found;
    if (first === undefined) callback(error ?? new Error('no public address'), '');
    else if (options.all === true) callback(null, found);
    else callback(null, first.address, first.family);
  });
};

// IANA's special-purpose registries; what is not listed there is somebody's on the internet.
const SPECIAL = new BlockList();
for (const [network, prefix] of [
  ['0.0.0.0', 8],
  ['10.0.0.0', 8],
  ['100.64.0.0', 10],
  ['127.0.0.0', 8],
  ['169.254.0.0', 16],
  ['172.16.0.0', 12],
  ['192.0.0.0', 24],
  ['192.0.2.0', 24],
  ['192.88.99.0', 24],
  ['192.168.0.0', 16],
  ['198.18.0.0', 15],
  ['198.51.100.0', 24],
  ['203.0.113.0', 24],
  ['224.0.0.0', 4],
  ['240.0.0.0', 4],
] as const) {
  SPECIAL.addSubnet(network, prefix, 'ipv4');
}
// Of IPv6 only 2000::/3 is given out; these lie in it and lead elsewhere.
const GLOBAL_UNICAST = new BlockList();
GLOBAL_UNICAST.addSubnet('2000::', 3, 'ipv6');
for (const [network, prefix] of [
  ['2001::', 23],
  ['2001:db8::', 32],
  ['2002::', 16],
  ['3fff::', 20],
] as const) {
  SPECIAL.addSubnet(network, prefix, 'ipv6');
}

/** Whether an IP address is one of the public internet. */
export function isPublic(address: string): boolean {
  if (isIP(address) === 4) return !SPECIAL.check(address, 'ipv4');
  return GLOBAL_UNICAST.check(address, 'ipv6') && !SPECIAL.check(address, 'ipv6');
}
