// A server that lies: it stands between one client and the real server, passes everything on, and changes what a test
// tells it to. The client talks to it over the same frames as always. Inbox positions are the liar's own, so that what it
// makes up or withholds leaves no trace in them.
import {
  create,
  type DescMessage,
  type Message,
  type MessageInitShape,
  type MessageShape,
  toBinary,
  fromBinary,
} from '@bufbuild/protobuf';
import { type Envelope, EnvelopeSchema, EnvelopesEventSchema, PushEvent } from '@quicprochat/proto';
import {
  type Connection,
  type MethodDescriptor,
  memoryPair,
  methods,
  route,
  RpcClient,
  RpcServer,
  type ServerConnection,
} from '@quicprochat/transport';
import type { Dialer } from '../packages/client/src/server-connection.ts';

type Answer<O extends DescMessage> = (real: MessageShape<O>) => MessageInitShape<O> | Promise<MessageInitShape<O>>;

interface Lie {
  readonly before: ((request: never) => unknown) | undefined;
  readonly after: ((real: never) => unknown) | undefined;
}

export class Meddler {
  /** What becomes of each envelope on its way to the client; several, none, or others. Default: itself. */
  envelopes: (envelope: Envelope) => readonly Envelope[] = (envelope) => [envelope];
  /** Every envelope the client was sent, before any change. */
  readonly seen: Envelope[] = [];
  /** Method names in the order of the calls. */
  readonly calls: string[] = [];
  readonly #lies: Map<number, Lie> = new Map();
  #client: ServerConnection<RpcClient> | undefined;
  /** The last position given to the client, and the real one behind each. */
  #given = 0n;
  readonly #real: Map<bigint, bigint> = new Map();
  #lastReal = 0n;

  /** Changes the answers of a method. */
  answer<I extends DescMessage, O extends DescMessage>(method: MethodDescriptor<I, O>, answer: Answer<O>): void {
    this.#lies.set(method.id, { before: this.#lies.get(method.id)?.before, after: answer as never });
  }

  /** Looks at or changes requests of a method before they are passed on; throwing answers them. */
  request<I extends DescMessage, O extends DescMessage>(
    method: MethodDescriptor<I, O>,
    request: (sent: MessageShape<I>) => MessageInitShape<I> | Promise<MessageInitShape<I>>,
  ): void {
    this.#lies.set(method.id, { before: request as never, after: this.#lies.get(method.id)?.after });
  }

  honest(): void {
    this.#lies.clear();
    this.envelopes = (envelope) => [envelope];
  }

  /** Pushes an envelope of the test's own making; its `seq` does not count. */
  push(envelope: MessageInitShape<typeof EnvelopeSchema>): void {
    this.#push([create(EnvelopeSchema, envelope)]);
  }

  /** Pushes an envelope under a position the client has seen already. */
  pushAgain(envelope: Envelope): void {
    this.#send([{ ...envelope, seq: this.#given }]);
  }

  /** Pushes an envelope under any position at all. */
  pushAt(envelope: Envelope, seq: bigint): void {
    this.#send([{ ...envelope, seq }]);
  }

  /** Pushes an event of any kind. */
  pushEvent(eventType: PushEvent, payload: Uint8Array): void {
    this.#client?.push(eventType, payload);
  }

  /** Calls the real server in the client's own session. */
  call<I extends DescMessage, O extends DescMessage>(
    method: MethodDescriptor<I, O>,
    request: MessageInitShape<I>,
  ): Promise<MessageShape<O>> {
    if (this.#client === undefined) throw new Error('the client is not connected');
    return this.#client.state.call(method, request);
  }

  /** The connection fails, for the client and for the server. */
  cut(): void {
    this.#client?.close(0, 'cut');
  }

  #push(envelopes: readonly Envelope[]): void {
    const numbered = envelopes.map((envelope) => {
      this.#given += 1n;
      this.#real.set(this.#given, this.#lastReal);
      return { ...envelope, seq: this.#given };
    });
    this.#send(numbered);
  }

  #send(envelopes: readonly Envelope[]): void {
    if (envelopes.length === 0) return;
    const event = create(EnvelopesEventSchema, { envelopes: [...envelopes] });
    this.#client?.push(PushEvent.ENVELOPES, toBinary(EnvelopesEventSchema, event));
  }

  /** The real position behind one of ours. */
  #realOf(given: bigint): bigint {
    return given === 0n ? 0n : (this.#real.get(given) ?? this.#lastReal);
  }

  /** Requests and answers that speak of positions, translated. */
  async #pass(upstream: RpcClient, method: MethodDescriptor, request: Message): Promise<Message> {
    const sent = { ...request } as Message & { afterSeq?: bigint; seqUpTo?: bigint };
    if (sent.afterSeq !== undefined) sent.afterSeq = this.#realOf(sent.afterSeq);
    if (sent.seqUpTo !== undefined) sent.seqUpTo = this.#realOf(sent.seqUpTo);
    const after = sent.afterSeq ?? 0n;
    if (method.id === methods.delivery.subscribe.id) this.#lastReal = after;
    const answer = (await upstream.call(method, sent)) as Message & { headSeq?: bigint; envelopes?: Envelope[] };
    if (answer.headSeq !== undefined) {
      const behind = answer.headSeq > this.#lastReal ? answer.headSeq - this.#lastReal : 0n;
      answer.headSeq = this.#given + behind;
    }
    for (const envelope of answer.envelopes ?? []) {
      const known = [...this.#real].find(([, real]) => real === envelope.seq)?.[0];
      envelope.seq = known ?? this.#given + 1n;
    }
    return answer;
  }

  /** For `Person.wrapDialer`. */
  readonly wrap = (real: Dialer): Dialer => ({
    server: real.server,
    dial: async (options) => this.#between(await real.dial(options)),
  });

  #between(toServer: Connection): Connection {
    const pair = memoryPair();
    const upstream = new RpcClient(toServer, {
      onPush: (eventType, payload) => {
        if (eventType !== PushEvent.ENVELOPES) {
          this.#client?.push(eventType, payload);
          return;
        }
        for (const envelope of fromBinary(EnvelopesEventSchema, payload.slice()).envelopes) {
          this.seen.push(envelope);
          this.#lastReal = envelope.seq;
          this.#push(this.envelopes(envelope));
          // What was withheld is not waited for.
          this.#real.set(this.#given, envelope.seq);
        }
      },
      onClose: () => pair.server.lose(),
    });
    const all = Object.values(methods).flatMap((service) => Object.values<MethodDescriptor>(service));
    const server = new RpcServer<RpcClient>({
      newState: () => upstream,
      authorize: ({ connection }) => {
        this.#client = connection;
      },
      routes: all.map((method) =>
        route(method, async ({ connection }, request) => {
          this.calls.push(method.name);
          const lie = this.#lies.get(method.id);
          const sent = lie?.before === undefined ? request : await lie.before(request as never);
          const answer = await this.#pass(connection.state, method, sent as typeof request);
          return (lie?.after === undefined ? answer : await lie.after(answer as never)) as typeof answer;
        }),
      ),
      onDisconnect: () => upstream.close(),
    });
    server.accept(pair.server);
    return pair.client;
  }
}
