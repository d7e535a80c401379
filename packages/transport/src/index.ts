// Framing, connections, calls. The QUIC binding is '@quicprochat/transport/quic'.
export { type Clock, systemClock } from './clock.ts';
export {
  CloseCode,
  type CloseReason,
  type Connection,
  type ConnectionHandler,
  type Listener,
  type StreamEnd,
  type StreamHandler,
  type TransportStream,
} from './connection.ts';
export { ConnectError, type ConnectErrorKind, ConnectionLost, RpcError, statusName } from './errors.ts';
export {
  type DecoderState,
  FrameDecoder,
  type FrameSink,
  type FrameVerdict,
  PAYLOAD_BYTES_MAX,
  SHARED_PAYLOAD_BYTES_MAX,
  encodePushHeader,
  encodeRequestHeader,
  encodeResponseHeader,
} from './framing.ts';
export { type MemoryConnection, type MemoryOptions, memoryPair } from './memory.ts';
export type { MethodDescriptor } from './method.ts';
export { type MethodAuth, indexMethods, methods, methodsById } from './methods.ts';
export { type CallOptions, RpcClient, type RpcClientOptions } from './rpc-client.ts';
export {
  type CallContext,
  DEFAULT_SERVER_LIMITS,
  type Handler,
  type Pace,
  type Route,
  RpcServer,
  type RpcServerOptions,
  type ServerConnection,
  type ServerLimits,
  route,
} from './rpc-server.ts';
export { Backoff, Reconnector, type ReconnectorOptions } from './reconnect.ts';
