/**
 * Live push of one inbox on one connection (DESIGN 5): read rows above the cursor, push, wait for drain, again. Writes
 * only wake it, so there is no cut-over between what was stored and what arrives, no gap, no repeat, and no buffer of its
 * own that could grow: what the peer does not read stays on disk. A pump at rest right below a row that comes with its
 * wake-up pushes that row as it is: reading would find the same one.
 */
import { create, toBinary } from '@bufbuild/protobuf';
import type { MessageInitShape } from '@bufbuild/protobuf';
import { EnvelopesEventSchema, InboxGapEventSchema, PushEvent } from '@quicprochat/proto';
import type { EnvelopeSchema } from '@quicprochat/proto';
import { CloseCode } from '@quicprochat/transport';
import type { ClientConnection, DeviceSession, ServerContext } from './context.ts';
import { toEnvelope, toInboxGap } from './inbox-envelopes.ts';
import type { Address, InboxGap, InboxRow } from './store/store.ts';

const ROWS_MAX = 64;
const BYTES_MAX = 256 * 1024;

export class InboxPump {
  readonly #server: ServerContext;
  readonly #connection: ClientConnection;
  readonly #session: DeviceSession;
  readonly #address: Address;
  readonly #unlisten: () => void;
  #cursor: number;
  #running = false;
  #again = false;
  #blocked = false;
  #stopped = false;
  #toldLosses: number | undefined;

  /** @param afterSeq the last position the device has stored */
  constructor(server: ServerContext, connection: ClientConnection, session: DeviceSession, afterSeq: number) {
    this.#server = server;
    this.#connection = connection;
    this.#session = session;
    this.#address = session.address;
    this.#cursor = afterSeq;
    this.#unlisten = server.live.onWake(this.#address, (row) => {
      if (row !== undefined && this.#follows(row)) this.#pushRows([row]);
      else this.wake();
      // Somebody has to wait until the peer has taken it.
      if (this.#blocked) this.wake();
    });
  }

  /** Looks into the inbox, now or as soon as the look in progress is over. */
  wake(): void {
    this.#again = true;
    if (this.#running || this.#stopped) return;
    this.#running = true;
    void this.#run();
  }

  /** Whether all before this row has been pushed and taken, and none but this is missing. */
  #follows({ seq }: InboxRow): boolean {
    return !this.#running && !this.#blocked && !this.#stopped && seq === this.#cursor + 1;
  }

  /** Nothing is pushed after this. */
  stop(): void {
    this.#stopped = true;
    this.#unlisten();
  }

  /** Pushes what touches no disk, unless the peer is behind: then it is lost, as such envelopes may be. */
  pushEphemeral(envelope: MessageInitShape<typeof EnvelopeSchema>): void {
    const event = create(EnvelopesEventSchema, { ephemeral: [envelope] });
    this.pushHint(PushEvent.ENVELOPES, toBinary(EnvelopesEventSchema, event));
  }

  /** Likewise an event that is no state. */
  pushHint(event: PushEvent, payload: Uint8Array): void {
    if (this.#stopped || this.#blocked) return;
    this.#push(event, payload);
    if (this.#blocked) this.wake();
  }

  async #run(): Promise<void> {
    try {
      while (this.#again && !this.#stopped) {
        this.#again = false;
        while (await this.#step());
      }
    } catch (error) {
      this.stop();
      this.#server.log.warn({ connection: this.#connection.id, err: error }, 'an inbox could not be read');
      // The device comes back by itself and starts at its own cursor.
      this.#connection.close(CloseCode.shutdown, 'the inbox cannot be read now');
    } finally {
      this.#running = false;
    }
  }

  /** Pushes the next part; true when more was there. */
  async #step(): Promise<boolean> {
    if (!(await this.#room())) return false;
    const { readTurns, store } = this.#server;
    const read = await readTurns.take(this.#address, async () => {
      if (this.#stopped) return undefined;
      return store.readInbox({
        address: this.#address,
        afterSeq: this.#cursor,
        maxRows: ROWS_MAX,
        maxBytes: BYTES_MAX,
      });
    });
    if (read === undefined || this.#stopped) return false;
    if (read.kind === 'unknown_device') {
      this.stop();
      return false;
    }
    if (read.gap !== undefined) this.#tell(read.gap);
    this.#pushRows(read.rows);
    return (await this.#room()) && read.more;
  }

  #pushRows(rows: readonly InboxRow[]): void {
    const last = rows.at(-1);
    if (last === undefined) return;
    const event = create(EnvelopesEventSchema, { envelopes: rows.map(toEnvelope) });
    this.#push(PushEvent.ENVELOPES, toBinary(EnvelopesEventSchema, event));
    this.#cursor = last.seq;
  }

  /** Waits until the peer has taken what was pushed; false once there is nobody to push to. */
  async #room(): Promise<boolean> {
    if (this.#blocked) {
      const alive = await this.#connection.drained();
      this.#blocked = false;
      if (!alive) this.stop();
    }
    return !this.#stopped;
  }

  // Told once here; it stands in the store until the device acknowledges something afterwards.
  #tell(gap: InboxGap): void {
    if (this.#toldLosses === gap.losses) return;
    this.#toldLosses = gap.losses;
    this.#session.toldGap = gap;
    this.#push(
      PushEvent.INBOX_GAP,
      toBinary(InboxGapEventSchema, create(InboxGapEventSchema, { gap: toInboxGap(gap) })),
    );
  }

  #push(event: PushEvent, payload: Uint8Array): void {
    if (!this.#connection.push(event, payload)) this.#blocked = true;
  }
}
