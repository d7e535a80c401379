// Work for a server that is killed all the time: devices that send, commit, fetch, upload, revoke and ban, each repeating
// what had no answer as a real client does, and writing down what it was promised and what it saw (history.ts).
import {
  type Delivery,
  type Finding,
  type IndexFinding,
  LogMirror,
  openCheckpoint,
  parseReceipt,
  type PinnedLog,
  type ResolvedAccount,
  signRevocation,
  verifyReceipt,
  verifyResolve,
  vrfReady,
} from '@quicprochat/core';
import { encodeHex } from '@quicprochat/crypto';
import { nodeCrypto as crypto } from '@quicprochat/crypto/node';
import {
  type Envelope,
  type RecipientResult,
  RegisterDeviceBodySchema,
  RevokeDeviceBodySchema,
  Status,
} from '@quicprochat/proto';
import { methods, type RpcClient, RpcError } from '@quicprochat/transport';
import type { Accepted, Delivered, History, Promised, Register } from './history.ts';
import type { Random } from '../random.ts';
import {
  connect,
  Device,
  newDevice,
  newPerson,
  nextStatement,
  type Person,
  register,
  resume,
  signed,
  type Site,
} from '../wire.ts';

type Operation = Register['operations'][number];

/** The history as it is being written. */
export class Recorder implements History {
  readonly promised: Promised[] = [];
  readonly sent = new Map<string, string>();
  readonly delivered: Delivered[] = [];
  readonly accepted: Accepted[] = [];
  readonly keyPackages = {
    uploaded: [] as string[],
    offered: [] as string[],
    handedOut: [] as { keyPackage: string; to: string }[],
    lostFetches: 0,
    emptied: false,
  };
  readonly observations: string[] = [];
  readonly #registers = new Map<string, Operation[]>();
  /** Calls whose answer was lost. */
  lost = 0;
  /** Accounts as they were proven to be in the log. */
  readonly resolved: ResolvedAccount[] = [];
  logEntries = 0;
  blobBytes = 0;
  accounts = 0;

  get registers(): Register[] {
    return [...this.#registers].map(([name, operations]) => ({ name, operations }));
  }

  write(name: string, value: string, answered: boolean): void {
    this.#register(name).push({ kind: 'write', value, answered });
  }

  read(name: string, value: string): void {
    this.#register(name).push({ kind: 'read', value });
  }

  #register(name: string): Operation[] {
    const operations = this.#registers.get(name) ?? [];
    this.#registers.set(name, operations);
    return operations;
  }

  /** Writes down an envelope that came or was read. */
  take(inbox: string, reading: number, envelope: Envelope): void {
    const { entry } = envelope;
    this.delivered.push({
      inbox,
      reading,
      seq: Number(envelope.seq),
      messageId: encodeHex(envelope.messageId),
      payloadHash: hashOf(envelope.data),
      channel: encodeHex(envelope.channelId),
      ...(entry === undefined
        ? {}
        : { entry: { position: Number(entry.position), logHash: encodeHex(entry.logHash) } }),
    });
  }
}

/** What every piece of work has at hand. */
export interface Work {
  readonly site: Site;
  readonly receiptKey: Uint8Array;
  readonly log: PinnedLog;
  readonly recorder: Recorder;
  readonly random: Random;
  readonly channelId: Uint8Array;
  /** Aborted when the load shall end; what has been begun is finished. */
  readonly stop: AbortSignal;
  readonly inboxName: (identityKey: Uint8Array) => string;
}

interface Message {
  readonly messageId: Uint8Array;
  readonly payload: Uint8Array;
  /** Undefined: everyone in the channel. */
  readonly to: Person | undefined;
}

function hashOf(bytes: Uint8Array): string {
  return encodeHex(crypto.hash('sha256', bytes));
}

/** An envelope of a group, as far as a server can tell. */
export function envelope(random: Random, bytes: number): Uint8Array {
  const payload = random.bytes(bytes);
  payload[0] = 3;
  return payload;
}

async function pause(work: Work, fromMs: number, toMs: number): Promise<void> {
  const ms = fromMs + work.random.below(toMs - fromMs + 1);
  await new Promise((resolve) => setTimeout(resolve, ms));
}

/** Sends to one or to all; now and then something again that was answered long ago, which must be seen as a repeat. */
export async function send(work: Work, device: Device, others: readonly Person[]): Promise<void> {
  const { random, recorder, stop } = work;
  const past: Message[] = [];
  while (!stop.aborted) {
    const again = past.length > 20 && random.below(12) === 0 ? past[random.below(past.length)] : undefined;
    const message = again ?? {
      messageId: random.bytes(16),
      payload: envelope(random, 64 + random.below(random.below(10) === 0 ? 60_000 : 2_000)),
      to: random.below(3) === 0 ? undefined : others[random.below(others.length)],
    };
    recorder.sent.set(encodeHex(message.messageId), hashOf(message.payload));
    const { results, proof } = await device.insist(
      (rpc) => enqueue(work, rpc, message),
      () => void recorder.lost++,
    );
    promise(work, `the sender on ${device.inbox}`, message, results, proof);
    for (const { outcome } of again === undefined ? [] : results) {
      if (outcome.case !== 'duplicate') {
        recorder.observations.push(
          `message ${encodeHex(message.messageId)} was acknowledged, and when it was sent again it was ${outcome.case ?? 'lost'}`,
        );
      }
    }
    if (again === undefined && past.length < 500) past.push(message);
    await pause(work, 1, 8);
  }
}

async function enqueue(
  { channelId }: Work,
  rpc: RpcClient,
  { messageId, payload, to }: Message,
): Promise<{ results: readonly RecipientResult[]; proof: Uint8Array }> {
  if (to === undefined) {
    const { results, deliveryProof } = await rpc.call(methods.delivery.batchEnqueue, { channelId, messageId, payload });
    return { results, proof: deliveryProof };
  }
  const recipient = { recipientKey: to.address.identityKey, deviceId: to.address.deviceId };
  const request = { ...recipient, channelId, messageId, payload };
  const { results, deliveryProof } = await rpc.call(methods.delivery.enqueue, request);
  return { results, proof: deliveryProof };
}

function promise(
  { site, receiptKey, recorder, channelId, inboxName }: Work,
  sender: string,
  { messageId, payload }: Pick<Message, 'messageId' | 'payload'>,
  results: readonly RecipientResult[],
  proof: Uint8Array,
): void {
  const deliveries = results.flatMap(({ address, outcome }): Delivery[] =>
    address !== undefined && (outcome.case === 'queued' || outcome.case === 'duplicate')
      ? [{ address, seq: outcome.value.seq }]
      : [],
  );
  const id = encodeHex(messageId);
  if (deliveries.length !== results.length || results.length === 0) {
    const kinds = results.map(({ outcome }) => outcome.case ?? 'nothing');
    recorder.observations.push(`message ${id} was answered ${kinds.join(', ') || 'with nothing'}`);
  }
  const receipt = parseReceipt(proof);
  const { origin } = site;
  const verdict =
    receipt === undefined
      ? ({ kind: 'invalid', reason: 'it cannot be read' } as const)
      : verifyReceipt(crypto, receipt, { origin, receiptKey, channelId, messageId, payload, deliveries });
  const badReceipt = verdict.kind === 'invalid' ? verdict.reason : undefined;
  for (const { address, seq } of deliveries) {
    const inbox = inboxName(address.identityKey);
    const base = { sender, inbox, messageId: id, payloadHash: hashOf(payload), seq: Number(seq) };
    recorder.promised.push({ ...base, badReceipt });
  }
}

/** Acknowledges now and then; the rest comes again after each kill, and has to be the same then. */
export async function acknowledge(work: Work, device: Device): Promise<void> {
  const { address } = device.person;
  while (!work.stop.aborted) {
    await pause(work, 50, 300);
    const seqUpTo = device.cursor;
    if (seqUpTo === device.acknowledged) continue;
    const inbox = { recipientKey: address.identityKey, deviceId: address.deviceId };
    const attempt = await device.try((rpc) => rpc.call(methods.delivery.ack, { ...inbox, seqUpTo }));
    if (attempt.kind === 'answered') device.acknowledged = seqUpTo;
    if (attempt.kind === 'refused') throw attempt.error;
  }
}

/** Waits for everything that was promised to come, then reads once more what is still there. */
export async function readToTheEnd(work: Work, device: Device): Promise<void> {
  const { recorder } = work;
  const { inbox, person } = device;
  const { identityKey: recipientKey, deviceId } = person.address;
  const { headSeq } = await device.insist((rpc) => rpc.call(methods.delivery.subscribe, { afterSeq: device.cursor }));
  const deadline = Date.now() + DRAIN_MS_MAX;
  while (device.cursor < headSeq && Date.now() < deadline) await pause(work, 20, 20);
  const reading = Device.nextReading();
  for (let afterSeq = 0n; ;) {
    const from = afterSeq;
    const { envelopes } = await device.insist((rpc) =>
      rpc.call(methods.delivery.peek, { recipientKey, deviceId, afterSeq: from }),
    );
    for (const each of envelopes) recorder.take(inbox, reading, each);
    const last = envelopes.at(-1);
    if (last === undefined) break;
    afterSeq = last.seq;
  }
}

const DRAIN_MS_MAX = 30_000;

/** Races the other committers for the next position; a repeat of what was accepted gets its first answer. */
export async function commit(work: Work, device: Device): Promise<void> {
  const { random, recorder, stop } = work;
  let after = 0n;
  let last: { messageId: Uint8Array; payload: Uint8Array; after: bigint; position: bigint } | undefined;
  while (!stop.aborted) {
    const isRepeat = last !== undefined && random.below(4) === 0;
    const attempt =
      isRepeat && last !== undefined ? last : { messageId: random.bytes(16), payload: envelope(random, 300), after };
    const outcome = await submit(work, device, attempt);
    if (outcome.kind === 'accepted') {
      if (isRepeat && outcome.position !== last?.position) {
        recorder.observations.push(
          `commit ${encodeHex(attempt.messageId)} was accepted at ${last?.position}, its repeat at ${outcome.position}`,
        );
      }
      if (outcome.position > after) after = outcome.position;
      last = { ...attempt, position: outcome.position };
    } else {
      if (isRepeat) recorder.observations.push(`the repeat of commit ${encodeHex(attempt.messageId)} met a conflict`);
      after = outcome.head;
    }
    await pause(work, 10, 60);
  }
}

/** One commit until it is answered. */
export async function submit(
  work: Work,
  device: Device,
  commit: { messageId: Uint8Array; payload: Uint8Array; after: bigint },
  rosterAdd: readonly Person[] = [],
): Promise<{ kind: 'accepted'; position: bigint } | { kind: 'conflict'; head: bigint }> {
  const { recorder, channelId } = work;
  const { messageId, payload, after } = commit;
  recorder.sent.set(encodeHex(messageId), hashOf(payload));
  const { outcome } = await device.insist(
    (rpc) =>
      rpc.call(methods.delivery.submitCommit, {
        channelId,
        after,
        messageId,
        payload,
        rosterAdd: rosterAdd.map(({ address }) => address),
      }),
    () => void recorder.lost++,
  );
  if (outcome.case === 'conflict') return { kind: 'conflict', head: outcome.value.head };
  if (outcome.case !== 'accepted' || outcome.value.entry === undefined) throw new Error('a commit without an outcome');
  const { entry, results, deliveryProof } = outcome.value;
  recorder.accepted.push({
    channel: encodeHex(channelId),
    messageId: encodeHex(messageId),
    payloadHash: hashOf(payload),
    position: Number(entry.position),
    logHash: encodeHex(entry.logHash),
  });
  promise(work, `the committer on ${device.inbox}`, commit, results, deliveryProof);
  return { kind: 'accepted', position: entry.position };
}

const SUITE = 1;

/** Keeps KeyPackages in stock. An upload without an answer is sent again, which must not bring back what was taken. */
export async function uploadKeyPackages(work: Work, device: Device): Promise<void> {
  const { random, recorder, stop } = work;
  const { keyPackages } = recorder;
  while (!stop.aborted) {
    const counted = await device.insist((rpc) => rpc.call(methods.keys.countKeyPackages, {}));
    const stock = counted.counts.find(({ suite }) => suite === SUITE)?.available ?? 0;
    if (stock < 40) {
      const notAfter = BigInt(Math.floor(Date.now() / 1000) + 86_400);
      const batch = Array.from({ length: 10 }, () => random.bytes(100 + random.below(200)));
      const hashes = batch.map(hashOf);
      keyPackages.offered.push(...hashes);
      const request = batch.map((keyPackage) => ({ keyPackage, suite: SUITE, notAfter, lastResort: false }));
      await device.insist(
        (rpc) => rpc.call(methods.keys.uploadKeyPackage, { keyPackages: request }),
        () => void recorder.lost++,
      );
      keyPackages.uploaded.push(...hashes);
    }
    await pause(work, 10, 60);
  }
}

/** Several at once from one device; there are several devices. */
export async function fetchKeyPackages(work: Work, device: Device, of: Person): Promise<void> {
  const one = async (): Promise<void> => {
    while (!work.stop.aborted) {
      await fetchOne(work, device, of);
      await pause(work, 5, 50);
    }
  };
  await Promise.all([one(), one(), one()]);
}

async function fetchOne({ recorder }: Work, device: Device, of: Person): Promise<number | undefined> {
  const { keyPackages } = recorder;
  const request = { identityKey: of.address.identityKey, suite: SUITE };
  const attempt = await device.try((rpc) => rpc.call(methods.keys.fetchKeyPackage, request));
  if (attempt.kind === 'refused') throw attempt.error;
  if (attempt.kind === 'lost') {
    keyPackages.lostFetches += 1;
    return undefined;
  }
  for (const { keyPackage } of attempt.value.keyPackages) {
    keyPackages.handedOut.push({ keyPackage: hashOf(keyPackage), to: device.inbox });
  }
  return attempt.value.keyPackages.length;
}

/** Takes what is left, so that every upload is accounted for. */
export async function emptyShelf(work: Work, device: Device, of: Person): Promise<void> {
  while ((await fetchOne(work, device, of)) !== 0);
  work.recorder.keyPackages.emptied = true;
}

const CHUNK_BYTES = 256 * 1024;
const BLOBS_MAX = 30;

/** Uploads files; after each kill it asks how far the upload is, which must be as far as was answered. */
export async function uploadBlobs(work: Work, device: Device): Promise<{ id: Uint8Array; bytes: Uint8Array }[]> {
  const { random, recorder, stop } = work;
  const complete: { id: Uint8Array; bytes: Uint8Array }[] = [];
  while (!stop.aborted && complete.length < BLOBS_MAX) {
    const bytes = random.bytes(1 + random.below(8 * CHUNK_BYTES));
    const id = crypto.hash('sha256', bytes);
    const name = `upload ${encodeHex(id).slice(0, 8)}`;
    const upload = (rpc: RpcClient, offset: number, chunk: Uint8Array) =>
      rpc.call(methods.blob.uploadBlob, {
        blobId: id,
        size: BigInt(bytes.length),
        offset: BigInt(offset),
        chunk,
      });
    let offset = 0;
    recorder.read(name, '0');
    for (let isDone = false; !isDone && !stop.aborted;) {
      const chunk = bytes.subarray(offset, Math.min(bytes.length, offset + CHUNK_BYTES));
      const end = offset + chunk.length;
      const state = end === bytes.length ? 'complete' : String(end);
      const attempt = await device.try((rpc) => upload(rpc, offset, chunk));
      if (attempt.kind === 'refused') throw attempt.error;
      recorder.write(name, state, attempt.kind === 'answered');
      let answer = attempt.kind === 'answered' ? attempt.value : undefined;
      if (answer === undefined) {
        recorder.lost += 1;
        answer = await device.insist((rpc) => upload(rpc, 0, new Uint8Array(0)));
      }
      recorder.read(name, answer.complete ? 'complete' : String(answer.nextOffset));
      isDone = answer.complete;
      offset = Number(answer.nextOffset);
    }
    if (offset !== bytes.length) continue;
    complete.push({ id, bytes });
    recorder.blobBytes += bytes.length;
    await pause(work, 20, 200);
  }
  return complete;
}

export async function checkBlobs(
  { recorder }: Work,
  device: Device,
  blobs: readonly { id: Uint8Array; bytes: Uint8Array }[],
): Promise<void> {
  for (const { id, bytes } of blobs) {
    for (let offset = 0; offset < bytes.length; offset += CHUNK_BYTES) {
      const length = Math.min(CHUNK_BYTES, bytes.length - offset);
      const request = { blobId: id, offset: BigInt(offset), length };
      const attempt = await device.try((rpc) => rpc.call(methods.blob.downloadBlob, request));
      const there = attempt.kind === 'answered' ? attempt.value.chunk : undefined;
      if (there !== undefined && hashOf(there) === hashOf(bytes.subarray(offset, offset + length))) continue;
      recorder.observations.push(`blob ${encodeHex(id)} was complete; at ${offset} it is ${there?.length ?? 'gone'}`);
      break;
    }
  }
}

/** Bans and unbans; what the list says and what happens to the banned must both be what was answered last. */
export async function ban(work: Work, admin: Device, victim: Person, token: Uint8Array): Promise<void> {
  const { recorder, stop } = work;
  const { identityKey } = victim.address;
  recorder.read('ban', 'none');
  for (let n = 1; !stop.aborted; n++) {
    const reason = n % 2 === 1 ? `reason ${n}` : 'none';
    const attempt = await admin.try<unknown>((rpc) =>
      reason === 'none'
        ? rpc.call(methods.moderation.unbanUser, { identityKey })
        : rpc.call(methods.moderation.banUser, { identityKey, reason }),
    );
    if (attempt.kind === 'refused' && attempt.error.status !== Status.NOT_FOUND) throw attempt.error;
    recorder.write('ban', reason, attempt.kind === 'answered');
    await pause(work, 20, 200);
    await checkBan(work, admin, victim, token);
  }
}

export async function checkBan(work: Work, admin: Device, victim: Person, token: Uint8Array): Promise<void> {
  const { site, recorder } = work;
  const { bans } = await admin.insist((rpc) => rpc.call(methods.moderation.listBanned, {}));
  const mine = bans.find(({ identityKey }) => encodeHex(identityKey) === encodeHex(victim.address.identityKey));
  recorder.read('ban', mine?.reason ?? 'none');
  await site.whenUp();
  try {
    const rpc = await connect(site);
    try {
      await resume(rpc, site.origin, victim, token);
      recorder.read('ban', 'none');
    } finally {
      rpc.close();
    }
  } catch (error) {
    // Otherwise it tells nothing: the connection was lost.
    if (!(error instanceof RpcError) || error.status !== Status.FORBIDDEN) return;
    if (mine === undefined) recorder.observations.push(`refused as banned while no ban is listed: ${error.message}`);
  }
}

/** As many as a statement names, the newest. */
const REVOCATIONS_STATED = 32;

/** Registers devices and revokes them: each is in the list or has a revocation, as was answered. */
export async function revokeDevices(work: Work, manager: Device): Promise<void> {
  const { site, recorder, stop } = work;
  const { origin } = site;
  const { identity, certificate, address } = manager.person;
  const { identityKey } = address;
  const revocations: Uint8Array[] = [];
  while (!stop.aborted) {
    const device = newDevice(origin, manager.person);
    const { deviceId } = device.address;
    const name = `device ${encodeHex(deviceId).slice(0, 8)}`;
    recorder.read(name, 'unknown');
    const revocation = signRevocation(crypto, identity.privateKey, {
      origin,
      address: device.address,
      deviceKey: device.device.publicKey,
      signer: 'identity',
      revokedAtSecs: Math.floor(Date.now() / 1000),
    });
    const enroll = async (rpc: RpcClient): Promise<unknown> => {
      const after = {
        certificates: [certificate, device.certificate],
        revocations: revocations.slice(-REVOCATIONS_STATED),
      };
      const accountStatement = await nextStatement(rpc, origin, manager.person, after);
      const body = { deviceCertificate: device.certificate, name: 'spare', accountStatement };
      const method = methods.device.registerDevice;
      return rpc.call(method, { signed: signed(origin, identity, method.id, RegisterDeviceBodySchema, body) });
    };
    const revoke = async (rpc: RpcClient): Promise<unknown> => {
      const after = {
        certificates: [certificate],
        revocations: [...revocations, revocation].slice(-REVOCATIONS_STATED),
      };
      const accountStatement = await nextStatement(rpc, origin, manager.person, after);
      const body = { deviceId, revocation, accountStatement };
      const method = methods.device.revokeDevice;
      return rpc.call(method, { signed: signed(origin, identity, method.id, RevokeDeviceBodySchema, body) });
    };
    for (const [state, step] of [
      ['registered', enroll],
      ['revoked', revoke],
    ] as const) {
      // Signed anew each time, so whoever got no answer looks first whether it happened.
      for (let found = ''; found !== state;) {
        const attempt = await manager.try(step);
        if (attempt.kind === 'refused') throw attempt.error;
        if (attempt.kind === 'lost') recorder.lost += 1;
        recorder.write(name, state, attempt.kind === 'answered');
        await pause(work, 10, 150);
        found = await stateOf(manager, identityKey, deviceId);
        recorder.read(name, found);
        if (attempt.kind === 'answered') break;
      }
    }
    revocations.push(revocation);
  }
}

/** Reads every device once more. */
export async function checkDevices({ recorder }: Work, manager: Device): Promise<void> {
  const { identityKey } = manager.person.address;
  const listed = await manager.insist((rpc) => rpc.call(methods.device.listDevices, {}));
  const there = new Set(listed.devices.map(({ deviceId }) => encodeHex(deviceId).slice(0, 8)));
  for (const { name } of recorder.registers) {
    const [what, id = ''] = name.split(' ');
    if (what === 'device') recorder.read(name, there.has(id) ? 'registered' : 'revoked');
  }
  if (listed.devices.some(({ deviceCertificate }) => deviceCertificate.length === 0)) {
    recorder.observations.push(`a device of ${encodeHex(identityKey).slice(0, 8)} has lost its certificate`);
  }
}

async function stateOf(manager: Device, identityKey: Uint8Array, deviceId: Uint8Array): Promise<string> {
  const addresses = [{ identityKey, deviceId }];
  const { revocations } = await manager.insist((rpc) => rpc.call(methods.keys.checkRevocation, { addresses }));
  const { devices } = await manager.insist((rpc) => rpc.call(methods.device.listDevices, {}));
  const isListed = devices.some((device) => encodeHex(device.deviceId) === encodeHex(deviceId));
  if (revocations.length > 0) return isListed ? 'revoked and listed' : 'revoked';
  return isListed ? 'registered' : 'unknown';
}

export async function putPushTokens(work: Work, device: Device): Promise<void> {
  const { recorder, stop } = work;
  recorder.read('push token', 'none');
  for (let n = 1; !stop.aborted; n++) {
    const token = n % 5 === 0 ? '' : `https://push.test/${n}`;
    const request = { kind: token === '' ? '' : 'webhook', token };
    const attempt = await device.try((rpc) => rpc.call(methods.device.registerPushToken, request));
    if (attempt.kind === 'refused') throw attempt.error;
    recorder.write('push token', token === '' ? 'none' : token, attempt.kind === 'answered');
    await pause(work, 20, 200);
  }
}

/** Registers accounts; one that was answered can be looked up for ever. */
export async function registerAccounts(work: Work, device: Device, most: number): Promise<Person[]> {
  const { site, recorder, stop } = work;
  const made: Person[] = [];
  while (!stop.aborted && made.length < most) {
    const person = newPerson(site.origin, `new-${encodeHex(crypto.random(4))}`);
    const name = `account ${person.username}`;
    recorder.read(name, 'unknown');
    await site.whenUp();
    let answered = false;
    try {
      const rpc = await connect(site);
      await register(rpc, site.origin, person, 'password of somebody new').finally(() => rpc.close());
      answered = true;
    } catch (error) {
      if (error instanceof RpcError && error.status !== Status.UNAVAILABLE && !error.local) throw error;
    }
    recorder.write(name, 'there', answered);
    if (answered) recorder.accounts += 1;
    await checkAccount(work, device, person);
    made.push(person);
    await pause(work, 300, 1_500);
  }
  return made;
}

export async function checkAccount({ recorder, log }: Work, device: Device, person: Person): Promise<void> {
  const { username, identity } = person;
  const { outcome } = await device.insist((rpc) => rpc.call(methods.user.resolveUser, { username }));
  const found = outcome.case === 'found' ? outcome.value : undefined;
  const isThere = found !== undefined && encodeHex(found.identityKey) === encodeHex(identity.publicKey);
  recorder.read(`account ${username}`, isThere ? 'there' : 'unknown');
  if (found === undefined) return;
  const { keyTransparency } = found;
  await vrfReady();
  const verdict =
    keyTransparency === undefined
      ? ({ kind: 'refused', detail: 'there is none' } as const)
      : verifyResolve(crypto, log, username, keyTransparency, identity.publicKey);
  if (verdict.kind === 'verified') recorder.resolved.push(verdict.account);
  else recorder.observations.push(`the proof of account ${username} in the log is refused: ${verdict.detail}`);
}

/**
 * Mirrors the key-transparency log through all the kills: a head that an earlier one does not lead to, an entry that has
 * changed or gone, an account's entry twice is a finding (THREATS 21).
 */
export async function watchLog(work: Work, device: Device): Promise<void> {
  const mirror = new LogMirror(crypto, work.log);
  while (!work.stop.aborted) {
    await follow(work, device, mirror);
    await pause(work, 20, 200);
  }
  await follow(work, device, mirror);
  const { recorder } = work;
  for (const finding of mirror.indexFindings) recorder.observations.push(`the log: ${describe(finding)}`);
  recorder.logEntries = mirror.size;
  for (const account of recorder.resolved) {
    const { kind } = mirror.checkResolved(account, 0);
    if (kind !== 'current' && kind !== 'superseded') {
      recorder.observations.push(`account ${account.username} was proven to be in the log: ${kind} now`);
    }
  }
}

async function follow({ recorder, log }: Work, device: Device, mirror: LogMirror): Promise<void> {
  // Seen elsewhere before this head was asked for: it has to lead to all of them.
  for (const { checkpoint } of recorder.resolved) mirror.witness(checkpoint);
  const { checkpoint } = await device.insist((rpc) => rpc.call(methods.keys.getTreeHead, {}));
  const opened = openCheckpoint(crypto, checkpoint, log);
  if (opened.kind === 'invalid') {
    recorder.observations.push(`a head of the log: ${opened.reason}`);
    return;
  }
  const start = mirror.update(opened.checkpoint);
  if (start.kind === 'finding') recorder.observations.push(`the log: ${describe(start.finding)}`);
  if (start.kind !== 'behind') return;
  const { update } = start;
  for (let next = update.next; ;) {
    const from = BigInt(next);
    const { entries } = await device.insist((rpc) => rpc.call(methods.keys.auditKeyTransparency, { start: from }));
    const outcome = update.append(entries);
    if (outcome.kind === 'finding') recorder.observations.push(`the log: ${describe(outcome.finding)}`);
    if (outcome.kind !== 'more') return;
    next = outcome.next;
  }
}

function describe(finding: Finding | IndexFinding): string {
  return JSON.stringify(finding, (_, value: unknown) => (value instanceof Uint8Array ? encodeHex(value) : value));
}
