// What people say to each other (`qpc.content.v1`): clients only.
export * from './gen/qpc/content/v1/content_pb.ts';
