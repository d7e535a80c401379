import { methods } from '@quicprochat/transport';
import { handler } from '../../handler.ts';

export const getTreeHead = handler(methods.keys.getTreeHead, ({ server }) => ({
  checkpoint: server.keyTransparency.checkpoint,
}));
