// What was promised and what was seen, and whether the two agree. The load writes the history down while the server is
// killed again and again; the checker knows nothing of servers, so that a test can feed it histories that are wrong.
//
// Ids are hex strings. Whatever was promised has been answered by the server; a call whose answer was lost promises
// nothing and may have happened.

/** The server's answer that an envelope is in an inbox. */
export interface Promised {
  readonly sender: string;
  readonly inbox: string;
  readonly messageId: string;
  readonly payloadHash: string;
  readonly seq: number;
  /** Why the receipt beside it is worth nothing; undefined when it verified. */
  readonly badReceipt?: string | undefined;
}

/** An envelope as a device got it. */
export interface Delivered {
  readonly inbox: string;
  /** Each subscription or read has a number of its own, in the order of their beginnings. */
  readonly reading: number;
  readonly seq: number;
  readonly messageId: string;
  readonly payloadHash: string;
  readonly channel?: string | undefined;
  /** Of a commit. */
  readonly entry?: { readonly position: number; readonly logHash: string } | undefined;
}

/** The server's answer that a commit has its place in the log. */
export interface Accepted {
  readonly channel: string;
  readonly messageId: string;
  readonly payloadHash: string;
  readonly position: number;
  readonly logHash: string;
}

/** One thing with one writer, such as whether an account is banned. Operations in the writer's order. */
export interface Register {
  readonly name: string;
  readonly operations: readonly (
    | { readonly kind: 'write'; readonly value: string; readonly answered: boolean }
    | { readonly kind: 'read'; readonly value: string }
  )[];
}

export interface History {
  readonly promised: readonly Promised[];
  /** Every message id that was ever sent, with its payload's hash. */
  readonly sent: ReadonlyMap<string, string>;
  readonly delivered: readonly Delivered[];
  readonly accepted: readonly Accepted[];
  readonly keyPackages: {
    /** Uploads that were answered. */
    readonly uploaded: readonly string[];
    /** All uploads, answered or not. */
    readonly offered: readonly string[];
    readonly handedOut: readonly { readonly keyPackage: string; readonly to: string }[];
    /** Fetches whose answer was lost: each may have taken one. */
    readonly lostFetches: number;
    /** Whether the shelf was emptied at the end. */
    readonly emptied: boolean;
  };
  readonly registers: readonly Register[];
  /** What cannot be put as one of the above. */
  readonly observations: readonly string[];
}

export interface HashChain {
  genesis(channel: string): string;
  next(previous: string, position: number, payloadHash: string): string;
}

/** Everything that is wrong, each with its evidence; empty when all promises were kept. */
export function violations(history: History, chain: HashChain): string[] {
  const found = [
    ...inboxViolations(history),
    ...orderViolations(history),
    ...commitViolations(history, chain),
    ...keyPackageViolations(history),
    ...history.registers.flatMap(registerViolations),
    ...history.observations,
  ];
  // What is read again is found again.
  return [...new Set(found)];
}

/** DESIGN 5: at least once, one seq per envelope for ever, no holes, nothing that was never sent. */
function inboxViolations({ promised, delivered, sent }: History): string[] {
  const found: string[] = [];
  const inboxes = Map.groupBy(delivered, ({ inbox }) => inbox);
  for (const [inbox, rows] of inboxes) {
    const bySeq = new Map<number, Delivered>();
    const seqOf = new Map<string, number>();
    const last = new Map<number, number>();
    for (const row of rows) {
      const { seq, messageId, payloadHash, reading } = row;
      const where = `inbox ${inbox} seq ${seq}`;
      const before = last.get(reading) ?? 0;
      if (seq <= before) found.push(`${where} came after seq ${before} in the same reading`);
      last.set(reading, seq);
      const known = bySeq.get(seq);
      if (known !== undefined && (known.messageId !== messageId || known.payloadHash !== payloadHash)) {
        found.push(`${where} held message ${known.messageId} and then ${messageId}`);
      }
      bySeq.set(seq, row);
      const other = seqOf.get(messageId);
      if (other !== undefined && other !== seq) {
        found.push(`message ${messageId} is in inbox ${inbox} twice: seq ${other} and ${seq}`);
      }
      seqOf.set(messageId, seq);
      if (sent.get(messageId) !== payloadHash)
        found.push(`${where}: nobody sent message ${messageId} with these bytes`);
    }
    const end = Math.max(...bySeq.keys());
    for (let seq = 1; seq <= end; seq++) if (!bySeq.has(seq)) found.push(`inbox ${inbox} has no seq ${seq} of ${end}`);
  }
  const rowAt = new Map(delivered.map((row) => [`${row.inbox} ${row.seq}`, row.messageId]));
  const answers = new Map<string, number>();
  for (const { inbox, messageId, payloadHash, seq, badReceipt } of promised) {
    const name = `${inbox} ${messageId}`;
    if (badReceipt !== undefined) found.push(`the receipt of message ${messageId} does not verify: ${badReceipt}`);
    const before = answers.get(name);
    if (before !== undefined && before !== seq) {
      found.push(`message ${messageId} was answered with seq ${before} and then ${seq} in inbox ${inbox}`);
    }
    answers.set(name, seq);
    if (rowAt.get(`${inbox} ${seq}`) !== messageId) {
      found.push(`acknowledged and lost: message ${messageId} (${payloadHash}), inbox ${inbox} seq ${seq}`);
    }
  }
  return found;
}

/** Who waits for each answer before the next sending finds the same order in the inbox. */
function orderViolations({ promised }: History): string[] {
  const found: string[] = [];
  const seen = new Set<string>();
  const last = new Map<string, { seq: number; messageId: string }>();
  for (const { sender, inbox, seq, messageId } of promised) {
    // A repeat gets its first answer, which is no news about order.
    if (seen.has(`${inbox} ${messageId}`)) continue;
    seen.add(`${inbox} ${messageId}`);
    const lane = `${sender} ${inbox}`;
    const before = last.get(lane);
    if (before !== undefined && seq <= before.seq) {
      found.push(`${sender} sent ${before.messageId} and then ${messageId}: seq ${before.seq} and ${seq} in ${inbox}`);
    }
    last.set(lane, { seq, messageId });
  }
  return found;
}

/** PROTOCOL 5: a position belongs to one commit for ever, a commit to one position, and the hashes form one chain. */
function commitViolations({ accepted, delivered, promised }: History, chain: HashChain): string[] {
  const found: string[] = [];
  const entries: Accepted[] = delivered.flatMap(({ channel, entry, messageId, payloadHash }) =>
    channel === undefined || entry === undefined ? [] : [{ channel, messageId, payloadHash, ...entry }],
  );
  for (const [channel, ofChannel] of Map.groupBy([...accepted, ...entries], (each) => each.channel)) {
    const log = new Map<number, Accepted>();
    const positionOf = new Map<string, number>();
    for (const each of ofChannel) {
      const { position, messageId } = each;
      const known = log.get(position);
      if (known !== undefined && known.messageId !== messageId) {
        found.push(`channel ${channel} position ${position} is commit ${known.messageId} and commit ${messageId}`);
      } else if (known !== undefined && known.logHash !== each.logHash) {
        found.push(`channel ${channel} position ${position} has two log hashes`);
      }
      log.set(position, each);
      const other = positionOf.get(messageId);
      if (other !== undefined && other !== position) {
        found.push(`commit ${messageId} has positions ${other} and ${position} in channel ${channel}`);
      }
      positionOf.set(messageId, position);
    }
    let hash = chain.genesis(channel);
    const head = Math.max(...log.keys());
    for (let position = 1; position <= head; position++) {
      const entry = log.get(position);
      if (entry === undefined) {
        found.push(`channel ${channel} has a head of ${head} and no position ${position}`);
        break;
      }
      hash = chain.next(hash, position, entry.payloadHash);
      if (hash !== entry.logHash) {
        found.push(`channel ${channel}: the log hash at position ${position} does not follow from the one before`);
        break;
      }
    }
  }
  // Every inbox that a commit was promised to has the entry, not just the envelope.
  const commits = new Map(accepted.map((each) => [each.messageId, each.position]));
  const entryAt = new Map(delivered.map((row) => [`${row.inbox} ${row.messageId}`, row.entry?.position]));
  for (const { inbox, messageId } of promised) {
    const position = commits.get(messageId);
    if (position === undefined || entryAt.get(`${inbox} ${messageId}`) === position) continue;
    found.push(`commit ${messageId} was accepted at ${position} and is not that entry in inbox ${inbox}`);
  }
  return found;
}

function keyPackageViolations({ keyPackages }: History): string[] {
  const { uploaded, offered, handedOut, lostFetches, emptied } = keyPackages;
  const found: string[] = [];
  const known = new Set(offered);
  const taken = new Map<string, string>();
  for (const { keyPackage, to } of handedOut) {
    const other = taken.get(keyPackage);
    if (other !== undefined) found.push(`KeyPackage ${keyPackage} was handed out twice: to ${other} and to ${to}`);
    if (!known.has(keyPackage)) found.push(`KeyPackage ${keyPackage}, handed out to ${to}, was never uploaded`);
    taken.set(keyPackage, to);
  }
  const missing = uploaded.filter((each) => !taken.has(each));
  if (emptied && missing.length > lostFetches) {
    found.push(
      `${missing.length} acknowledged KeyPackages were never handed out, ${lostFetches} fetches were lost: ${missing.slice(0, 5).join(', ')}`,
    );
  }
  return found;
}

/** A read shows the last answered write, or one after it whose answer was lost; what a read has shown stays. */
function registerViolations({ name, operations }: Register): string[] {
  const found: string[] = [];
  let possible = new Set<string>();
  for (const { kind, value, ...rest } of operations) {
    if (kind === 'write') {
      if ('answered' in rest && rest.answered) possible = new Set([value]);
      else possible.add(value);
    } else {
      if (possible.size > 0 && !possible.has(value)) {
        found.push(`${name}: expected ${[...possible].join(' or ')}, found ${value}`);
      }
      possible = new Set([value]);
    }
  }
  return found;
}
