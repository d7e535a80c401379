// The wire contract: everything generated from proto/. `npm run generate` writes src/gen; nothing here is edited by hand.
export * from './gen/qpc/v1/auth_pb.ts';
export * from './gen/qpc/v1/blob_pb.ts';
export * from './gen/qpc/v1/channel_pb.ts';
export * from './gen/qpc/v1/common_pb.ts';
export * from './gen/qpc/v1/delivery_pb.ts';
export * from './gen/qpc/v1/device_pb.ts';
export * from './gen/qpc/v1/federation_pb.ts';
export * from './gen/qpc/v1/group_pb.ts';
export * from './gen/qpc/v1/keys_pb.ts';
export * from './gen/qpc/v1/moderation_pb.ts';
export * from './gen/qpc/v1/p2p_pb.ts';
export * from './gen/qpc/v1/push_pb.ts';
export * from './gen/qpc/v1/recovery_pb.ts';
export * from './gen/qpc/v1/user_pb.ts';
