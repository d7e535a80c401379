/**
 * What the operator can do with accounts, bans and reports, on a server that runs as on a store that nobody serves
 * (decision 0015). Requests and answers are plain JSON: bytes are hex digits (a report: base64url), times milliseconds
 * since 1970. Nothing here answers with a secret.
 *
 *   command line → control socket | the store itself → operation → store, live connections
 */
import { encodeBase64Url } from '@quicprochat/core';
import { decodeHex, encodeHex } from '@quicprochat/crypto';
import { z } from 'zod';
import type { AuditEventName } from '../audit.ts';
import type { ServerContext } from '../context.ts';
import { banAccount } from '../moderation.ts';
import type { ModerationContext } from '../moderation.ts';
import { invalidArgument, notFound } from '../refusals.ts';
import { expelDevice } from '../sessions.ts';
import type { Account } from '../store/store.ts';

/** Without an auditor, on a store that nobody serves, the audit log is not there either. */
export type OperatorContext = ModerationContext & Pick<ServerContext, 'log'> & Partial<Pick<ServerContext, 'auditor'>>;

const PAGE_MAX = 500;
const REPORTS_PER_PAGE = 16;
const REPORT_PAGE_BYTES_MAX = 2 * 1024 * 1024;
const IDS_MAX = 1_000;

// What it says is checked where it is used, and refused in words.
const text = z.string().max(4_096);
/** A name, or an identity key of 64 hex digits; a name is shorter than that. */
const account = text;
const requests = {
  account: z.strictObject({ account }),
  accounts: z.strictObject({ after: z.string().max(64) }),
  ban: z.strictObject({ account, reason: text, durationSecs: z.number().int().nonnegative() }),
  unban: z.strictObject({ account }),
  bans: z.strictObject({ after: z.string().regex(/^(?:[0-9a-f]{64})?$/) }),
  reports: z.strictObject({ afterId: z.number().int().nonnegative() }),
  deleteReports: z.strictObject({ ids: z.array(z.number().int().positive()).min(1).max(IDS_MAX) }),
  endSessions: z.strictObject({
    account,
    deviceId: z
      .string()
      .regex(/^[0-9a-f]{32}$/)
      .optional(),
  }),
};
type Requests = { readonly [K in keyof typeof requests]: z.output<(typeof requests)[K]> };

interface AccountListing {
  readonly username: string;
  readonly identityKey: string;
  readonly createdAtMs: number;
  readonly devices: number;
}

export interface AccountDetails {
  readonly username: string;
  readonly identityKey: string;
  readonly createdAtMs: number;
  readonly devices: readonly {
    readonly deviceId: string;
    /** Public: what the device signs with. */
    readonly deviceKey: string;
    readonly name: string;
    readonly registeredAtMs: number;
    /** Start of the last UTC day with a session. */
    readonly lastSeenDayMs: number;
    /** Open connections with a session of it. */
    readonly connections: number;
  }[];
  readonly ban: BanListing | undefined;
}

interface BanListing {
  readonly identityKey: string;
  /** Undefined for an account that has been deleted. */
  readonly username: string | undefined;
  readonly reason: string;
  /** Undefined = for good. */
  readonly untilMs: number | undefined;
}

export interface SealedReport {
  readonly id: number;
  readonly receivedAtMs: number;
  readonly conversationId: string;
  /** As sealed by the reporter's client; base64url. */
  readonly report: string;
}

interface Answers {
  readonly account: AccountDetails;
  /** In order of name; an empty page is the last. */
  readonly accounts: readonly AccountListing[];
  readonly ban: {
    readonly username: string;
    readonly identityKey: string;
    readonly untilMs: number | undefined;
    readonly connectionsEnded: number;
  };
  readonly unban: { readonly username: string; readonly identityKey: string; readonly lifted: boolean };
  readonly bans: readonly BanListing[];
  readonly reports: readonly SealedReport[];
  readonly deleteReports: { readonly deleted: number };
  readonly endSessions: {
    readonly username: string;
    readonly identityKey: string;
    readonly sessionsEnded: number;
    readonly connectionsEnded: number;
  };
}

export type Operations = { readonly [K in keyof Requests]: (request: Requests[K]) => Promise<Answers[K]> };

/** Checks a request that came as JSON. @throws RpcError when it is not one */
export function parseOperatorRequest<S extends z.ZodType>(schema: S, input: unknown): z.output<S> {
  const parsed = schema.safeParse(input);
  if (parsed.success) return parsed.data;
  const [issue] = parsed.error.issues;
  throw invalidArgument(`the request is malformed: ${issue?.path.join('.') ?? ''} ${issue?.message ?? ''}`);
}

export type OperationHandlers = ReadonlyMap<string, (input: unknown) => Promise<unknown>>;

/** The operations by name, each checking what it is given. */
export function operationHandlers(operations: Operations): OperationHandlers {
  const bind = <K extends keyof Requests>(name: K): [string, (input: unknown) => Promise<unknown>] => [
    name,
    async (input) => operations[name](parseOperatorRequest(requests[name], input) as Requests[K]),
  ];
  return new Map((Object.keys(requests) as (keyof Requests)[]).map((name) => bind(name)));
}

export function createOperations(server: OperatorContext): Operations {
  const { store, clock, live, log } = server;

  const audit = (event: AuditEventName, account?: Uint8Array): void =>
    server.auditor?.record({ event, outcome: 'ok', account, by: 'operator' });

  async function find(nameOrKey: string): Promise<Account> {
    const identityKey = nameOrKey.length === 64 ? decodeHex(nameOrKey.toLowerCase()) : undefined;
    const found =
      identityKey === undefined
        ? await store.findAccountByUsername(nameOrKey.toLowerCase())
        : await store.findAccountByIdentity(identityKey);
    if (found === undefined) throw notFound(`there is no account "${nameOrKey}"`, 'See qpc-server admin accounts.');
    return found;
  }

  const named = ({ username, identityKey }: Account) => ({ username, identityKey: encodeHex(identityKey) });

  return {
    account: async (request) => {
      const found = await find(request.account);
      const ban = await store.findBan(found.identityKey, clock.wallMs());
      return {
        ...named(found),
        createdAtMs: found.createdAtMs,
        devices: found.devices.map((device) => ({
          deviceId: encodeHex(device.deviceId),
          deviceKey: encodeHex(device.deviceKey),
          name: device.name,
          registeredAtMs: device.registeredAtMs,
          lastSeenDayMs: device.lastSeenDayMs,
          connections: live.connections(device).length,
        })),
        ban: ban && { ...named(found), reason: ban.reason, untilMs: ban.untilMs },
      };
    },

    accounts: async ({ after }) => {
      const page = await store.listAccounts({ afterUsername: after, limit: PAGE_MAX });
      return page.map((each) => ({ ...each, identityKey: encodeHex(each.identityKey) }));
    },

    ban: async ({ account: nameOrKey, reason, durationSecs }) => {
      const found = await find(nameOrKey);
      const outcome = await banAccount(server, { identityKey: found.identityKey, reason, durationSecs });
      log.info({ by: 'operator', durationSecs }, 'account banned');
      audit('ban', found.identityKey);
      return { ...named(found), ...outcome };
    },

    unban: async (request) => {
      const found = await find(request.account);
      const lifted = await store.liftBan(found.identityKey);
      if (lifted) log.info({ by: 'operator' }, 'ban lifted');
      if (lifted) audit('unban', found.identityKey);
      return { ...named(found), lifted };
    },

    bans: async ({ after }) => {
      const afterIdentityKey = after === '' ? undefined : decodeHex(after);
      const page = await store.listBans({ afterIdentityKey, limit: PAGE_MAX, nowMs: clock.wallMs() });
      return Promise.all(
        page.map(async ({ identityKey, reason, untilMs }) => ({
          identityKey: encodeHex(identityKey),
          username: (await store.findAccountByIdentity(identityKey))?.username,
          reason,
          untilMs,
        })),
      );
    },

    reports: async ({ afterId }) => {
      audit('reports_read');
      const page = await store.listReports({ afterId, limit: REPORTS_PER_PAGE, maxBytes: REPORT_PAGE_BYTES_MAX });
      return page.map(({ id, report, conversationId, receivedAtMs }) => ({
        id,
        receivedAtMs,
        conversationId: encodeHex(conversationId),
        report: encodeBase64Url(report),
      }));
    },

    deleteReports: async ({ ids }) => {
      const deleted = await store.deleteReports(ids);
      log.info({ by: 'operator', deleted }, 'reports deleted');
      audit('reports_deleted');
      return { deleted };
    },

    endSessions: async ({ account: nameOrKey, deviceId }) => {
      const found = await find(nameOrKey);
      const devices =
        deviceId === undefined ? found.devices : found.devices.filter((each) => encodeHex(each.deviceId) === deviceId);
      if (deviceId !== undefined && devices.length === 0) {
        throw notFound(`${found.username} has no device ${deviceId}`, 'See qpc-server admin account NAME.');
      }
      let sessionsEnded = 0;
      let connectionsEnded = 0;
      for (const device of devices) {
        sessionsEnded += await store.revokeSessions(device);
        connectionsEnded += live.connections(device).length;
        expelDevice(server, device, undefined, 'the operator has ended this session');
      }
      log.info({ by: 'operator', sessionsEnded, connectionsEnded }, 'sessions ended');
      audit('sessions_ended', found.identityKey);
      return { ...named(found), sessionsEnded, connectionsEnded };
    },
  };
}
