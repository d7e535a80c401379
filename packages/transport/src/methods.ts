// The table of methods, read from the options in the .proto files: the one place where the contract's
// own types meet the transport's. A method without rules does not load.
import { type DescMessage, type DescMethod, getOption, hasOption } from '@bufbuild/protobuf';
import type { DescService } from '@bufbuild/protobuf';
import {
  AccountService,
  AuthRule,
  AuthService,
  BlobService,
  ChannelService,
  DeliveryService,
  DeviceService,
  FederationService,
  GroupService,
  KeysService,
  ModerationService,
  P2pService,
  RecoveryService,
  StreamUse,
  UserService,
  rules,
} from '@quicprochat/proto';
import type { MethodDescriptor } from './method.ts';

/** Who may call a method; see `AuthRule` in common.proto. */
export type MethodAuth = 'anyone' | 'device' | 'recovery' | 'admin' | 'device-or-sealed' | 'server';

const AUTH_NAMES: ReadonlyMap<number, MethodAuth> = new Map([
  [AuthRule.ANYONE, 'anyone'],
  [AuthRule.DEVICE, 'device'],
  [AuthRule.RECOVERY, 'recovery'],
  [AuthRule.ADMIN, 'admin'],
  [AuthRule.DEVICE_OR_SEALED, 'device-or-sealed'],
  [AuthRule.SERVER, 'server'],
]);

type MethodsOf<S extends DescService> = {
  readonly [K in keyof S['method']]: MethodDescriptor<S['method'][K]['input'], S['method'][K]['output']> & {
    readonly auth: MethodAuth;
  };
};

/** Every method of the contract, by service and name: `methods.delivery.enqueue`. */
export const methods = {
  account: methodsOf(AccountService),
  auth: methodsOf(AuthService),
  blob: methodsOf(BlobService),
  channel: methodsOf(ChannelService),
  delivery: methodsOf(DeliveryService),
  device: methodsOf(DeviceService),
  federation: methodsOf(FederationService),
  group: methodsOf(GroupService),
  keys: methodsOf(KeysService),
  moderation: methodsOf(ModerationService),
  p2p: methodsOf(P2pService),
  recovery: methodsOf(RecoveryService),
  user: methodsOf(UserService),
} as const;

/** The same methods by their number on the wire. */
export const methodsById: ReadonlyMap<number, MethodDescriptor> = indexMethods(
  Object.values(methods).flatMap((service) => Object.values<MethodDescriptor>(service)),
);

/**
 * Indexes methods by id.
 * @throws Error when two share an id or one is out of range
 */
export function indexMethods(list: Iterable<MethodDescriptor>): ReadonlyMap<number, MethodDescriptor> {
  const byId = new Map<number, MethodDescriptor>();
  for (const method of list) {
    if (!(method.id >= 1 && method.id <= 0xffff)) throw new Error(`${method.name}: bad method id`);
    const other = byId.get(method.id);
    if (other !== undefined) throw new Error(`${method.name} and ${other.name} share an id`);
    byId.set(method.id, method);
  }
  return byId;
}

function methodsOf<S extends DescService>(service: S): MethodsOf<S> {
  const entries = Object.entries<DescMethod>(service.method);
  return Object.fromEntries(entries.map(([key, method]) => [key, descriptorOf(method)])) as MethodsOf<S>;
}

function descriptorOf(method: DescMethod): MethodDescriptor<DescMessage, DescMessage> & { readonly auth: MethodAuth } {
  const name = `${method.parent.typeName}/${method.name}`;
  if (method.methodKind !== 'unary') throw new Error(`${name}: only unary methods exist`);
  if (!hasOption(method, rules)) throw new Error(`${name}: no rules`);
  const option = getOption(method, rules);
  const auth = AUTH_NAMES.get(option.auth);
  if (auth === undefined) throw new Error(`${name}: no auth rule`);
  if (option.stream !== StreamUse.SHARED && option.stream !== StreamUse.OWN) {
    throw new Error(`${name}: no stream use`);
  }
  return {
    id: option.id,
    name,
    requestMax: option.requestMax,
    responseMax: option.responseMax,
    timeoutMs: option.timeoutMs,
    idempotent: option.idempotent,
    stream: option.stream === StreamUse.SHARED ? 'shared' : 'own',
    auth,
    input: method.input,
    output: method.output,
  };
}
