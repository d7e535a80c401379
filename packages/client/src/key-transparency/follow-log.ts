/**
 * Keeping a copy of the log (PROTOCOL section 7), whoever hands it out. No clock, no store, no network of its own:
 *
 *   source.head() ─ signed? ─▶ mirror.update ─ behind ─▶ source.entries(next) … ─▶ root recomputed ─▶ moved
 *        ▲── once more, when it looks older than what is known: it may have been on its way ──┘
 */
import type { CryptoProvider } from '@quicprochat/crypto';
import {
  type Checkpoint,
  type Finding,
  type IndexFinding,
  LogMirror,
  type MirrorUpdate,
  openCheckpoint,
  type PinnedLog,
} from '@quicprochat/core';

/** Entries hashed without letting others run: about ten milliseconds. */
const HASHED_AT_ONCE = 1_000;

/** Whoever hands out the log. Nothing it says is believed. */
export interface LogSource {
  /** The newest checkpoint, a signed note. */
  head(): Promise<Uint8Array>;
  /** Encoded entries from a position on: a page of any length; none when there are no more, or none to be had. */
  entries(position: number): Promise<readonly Uint8Array[]>;
}

export interface FollowOptions {
  /** Called after each page with the number of entries at hand and the number there will be. */
  readonly progress?: (entries: number, of: number) => void;
  /** Now and then: lets others run. */
  readonly pause?: () => Promise<void>;
}

export type Followed =
  /** The mirror adds up to the newest head. `findings` are new ones about single accounts. */
  | { readonly kind: 'current'; readonly from: number; readonly findings: readonly IndexFinding[] }
  | { readonly kind: 'finding'; readonly finding: Finding }
  /** More entries than a client mirrors; `head` is signed all the same. */
  | { readonly kind: 'too-large'; readonly head: Checkpoint }
  /** What came is not signed by the log, or does not come. It proves nothing, and nothing is believed. */
  | { readonly kind: 'refused'; readonly reason: string };

/** Brings the mirror to the newest head. What the source throws goes through; the mirror is then as it was. */
export async function followLog(
  crypto: CryptoProvider,
  log: PinnedLog,
  mirror: LogMirror,
  source: LogSource,
  options: FollowOptions = {},
): Promise<Followed> {
  const from = mirror.size;
  for (let attempt = 0; ; attempt++) {
    const opened = openCheckpoint(crypto, await source.head(), log);
    if (opened.kind === 'invalid') return { kind: 'refused', reason: opened.reason };
    const head = opened.checkpoint;
    const start = mirror.update(head);
    switch (start.kind) {
      case 'current':
        return { kind: 'current', from, findings: [] };
      case 'too-large':
        return { kind: 'too-large', head };
      case 'finding':
        if (attempt === 0 && isPerhapsLate(start.finding)) continue;
        return start;
      case 'behind': {
        const filled = await fill(start.update, head.size, (position) => source.entries(position), options);
        return filled.kind === 'complete' ? { kind: 'current', from, findings: filled.findings } : filled;
      }
    }
  }
}

/** Checkpoint and entries as they were stored. */
export interface StoredCopy {
  readonly checkpoint: Uint8Array;
  entries(position: number): readonly Uint8Array[];
}

/** The mirror as it was, every hash recomputed; undefined when what is stored does not add up. */
export async function restoreMirror(
  crypto: CryptoProvider,
  log: PinnedLog,
  stored: StoredCopy,
  options: FollowOptions = {},
): Promise<LogMirror | undefined> {
  const mirror = new LogMirror(crypto, log);
  const opened = openCheckpoint(crypto, stored.checkpoint, log);
  if (opened.kind === 'invalid') return undefined;
  const start = mirror.update(opened.checkpoint);
  if (start.kind === 'current') return mirror;
  if (start.kind !== 'behind') return undefined;
  const filled = await fill(
    start.update,
    opened.checkpoint.size,
    async (position) => stored.entries(position),
    options,
  );
  return filled.kind === 'complete' ? mirror : undefined;
}

type Filled =
  | { readonly kind: 'complete'; readonly findings: readonly IndexFinding[] }
  | Extract<Followed, { kind: 'finding' | 'refused' }>;

async function fill(
  update: MirrorUpdate,
  size: number,
  entries: (position: number) => Promise<readonly Uint8Array[]>,
  { progress, pause }: FollowOptions,
): Promise<Filled> {
  for (;;) {
    const page = await entries(update.next);
    if (page.length === 0) {
      return { kind: 'refused', reason: 'the server withholds entries of a log whose head it has signed' };
    }
    for (let from = 0; from < page.length; from += HASHED_AT_ONCE) {
      const outcome = update.append(page.slice(from, from + HASHED_AT_ONCE));
      progress?.(outcome.kind === 'more' ? outcome.next : size, size);
      if (outcome.kind !== 'more') return outcome;
      await pause?.();
    }
  }
}

/** A head that was on its way while a larger one was seen looks like these. */
function isPerhapsLate({ kind }: Finding): boolean {
  return kind === 'stale-head' || kind === 'rollback';
}
