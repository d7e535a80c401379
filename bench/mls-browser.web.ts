// What runs in the page of mls-browser.ts: two members of a group on the noble provider, one sends, the other receives;
// beside them the provider's primitives with nothing around. The server of the benchmark gets the rates.
import { encodeUtf8, equal, hashOfKdf } from '@quicprochat/crypto';
import { nobleCrypto } from '@quicprochat/crypto/noble';
import {
  CipherSuiteId,
  type GroupState,
  type MlsContext,
  cipherSuites,
  createCommit,
  createGroup,
  generateKeyPackage,
  generateSignatureKeyPair,
  joinGroup,
  mergePendingCommit,
  processMessage,
  protectApplication,
  verifyKeyPackage,
} from '@quicprochat/mls';

/** Messages a second, one figure a round, of every contender in turn. */
export interface BrowserRates {
  readonly suite: string;
  readonly send: readonly number[];
  readonly receive: readonly number[];
  readonly bareSend: readonly number[];
  readonly bareReceive: readonly number[];
}

export type BrowserReport =
  | { readonly kind: 'measured'; readonly rates: readonly BrowserRates[] }
  | { readonly kind: 'failed'; readonly reason: string };

const DATA = new Uint8Array(100).fill(0x61);
const context: MlsContext = {
  crypto: nobleCrypto,
  random: nobleCrypto.random,
  now: Math.floor(Date.now() / 1000),
};

function accepted<T extends { readonly kind: string }>(outcome: T): Exclude<T, { kind: 'rejected' }> {
  if (outcome.kind === 'rejected') throw new Error(JSON.stringify(outcome));
  return outcome as Exclude<T, { kind: 'rejected' }>;
}

function groupOfTwo(cipherSuite: number): [GroupState, GroupState] {
  const person = (name: string) => ({
    cipherSuite,
    credential: { credentialType: 1 as const, identity: encodeUtf8(name) },
    signatureKeyPair: generateSignatureKeyPair(context, cipherSuite),
  });
  const alice = createGroup(context, { ...person('Alice'), groupId: context.random(32) });
  const bundle = generateKeyPackage(context, person('Bob'));
  const { keyPackage } = accepted(verifyKeyPackage(context, bundle.keyPackage));
  const { state, pending, welcome } = accepted(
    createCommit(context, alice, { proposals: [{ kind: 'add', keyPackage }] }),
  );
  if (welcome === undefined) throw new Error('no Welcome');
  const bob = accepted(joinGroup(context, { welcome, keyPackage: bundle })).state;
  return [mergePendingCommit(context, state, pending), bob];
}

/** As mls-primitives.ts has it for Node. */
function barePrimitives(cipherSuite: number): { send(): void; receive(): void } {
  const suite = cipherSuites.find(({ id }) => id === cipherSuite)!;
  const signature = nobleCrypto.signature(suite.signature);
  const aead = nobleCrypto.aead(suite.aead);
  const hash = hashOfKdf(suite.kdf);
  const { privateKey, publicKey } = signature.deriveKeyPair(context.random(32));
  const toBeSigned = context.random(DATA.length + 200);
  const signed = signature.sign(privateKey, toBeSigned);
  const secret = context.random(nobleCrypto.hashLength(hash));
  const info = context.random(28);
  const [key, nonce, aad] = [context.random(aead.keyLength), context.random(12), context.random(43)];
  const contents = [context.random(4 + DATA.length + 64), context.random(12)];
  const sealed = contents.map((each) => aead.seal(key, nonce, aad, each));
  const derive = (): void => {
    for (let i = 0; i < 5; i += 1) nobleCrypto.hmac(hash, secret, info);
  };
  return {
    send() {
      signature.sign(privateKey, toBeSigned);
      derive();
      for (const each of contents) aead.seal(key, nonce, aad, each);
    },
    receive() {
      derive();
      for (const each of sealed) aead.open(key, nonce, aad, each);
      signature.verify(publicKey, toBeSigned, signed);
    },
  };
}

/** Times on the clock: a page knows no other. */
function rate(count: number, operation: () => void): number {
  const start = performance.now();
  for (let i = 0; i < count; i += 1) operation();
  return (1000 * count) / (performance.now() - start);
}

function measure(suite: keyof typeof CipherSuiteId, rounds: number, count: number): BrowserRates {
  let [alice, bob] = groupOfTwo(CipherSuiteId[suite]);
  const bare = barePrimitives(CipherSuiteId[suite]);
  const sent: Uint8Array[] = [];
  const send = (): void => {
    const { state, message } = protectApplication(context, alice, DATA);
    alice = state;
    sent.push(message);
  };
  const receive = (message: Uint8Array): void => {
    const outcome = accepted(processMessage(context, bob, message));
    if (outcome.kind !== 'application' || !equal(outcome.data, DATA)) throw new Error('received what was not sent');
    bob = outcome.state;
  };
  const rates: Record<'send' | 'receive' | 'bareSend' | 'bareReceive', number[]> = {
    send: [],
    receive: [],
    bareSend: [],
    bareReceive: [],
  };
  // The first round warms up.
  for (let round = 0; round <= rounds; round += 1) {
    rates.bareSend.push(rate(count, bare.send));
    rates.send.push(rate(count, send));
    rates.bareReceive.push(rate(count, bare.receive));
    const arriving = sent.splice(0).values();
    rates.receive.push(rate(count, () => receive(arriving.next().value!)));
  }
  for (const list of Object.values(rates)) list.shift();
  return { suite, ...rates };
}

async function report(body: BrowserReport): Promise<void> {
  await fetch('/report', { method: 'POST', body: JSON.stringify(body) });
}

try {
  const query = new URLSearchParams(new URL(import.meta.url).search);
  const [rounds, count] = [Number(query.get('rounds')), Number(query.get('count'))];
  const suites = [
    'MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519',
    'MLS_128_MLKEM768X25519_AES256GCM_SHA384_Ed25519',
  ] as const;
  const rates = suites.map((suite) => measure(suite, rounds, count));
  await report({ kind: 'measured', rates });
} catch (error) {
  await report({ kind: 'failed', reason: String(error instanceof Error ? error.stack : error) });
}
