// The real server as a process of its own, in one run on one disk. What is answered is on disk, so the disk's own
// fdatasync comes first.
import path from 'node:path';
import type { BenchOptions, BenchResult } from './result.ts';
import { serverConnectionsBench } from './server-connections.ts';
import { serverDurableBench } from './server-durable.ts';
import { serverMemoryBench } from './server-memory.ts';
import { ServerProcess } from './server-process.ts';
import { type SeededDevice, seedDevices, seedGroup, withStore } from './server-seed.ts';
import { serverStartBench } from './server-start.ts';
import { temporaryFolder } from './temporary-folder.ts';

export const FAN_OUT_DEVICES = 1000;

/** A server's data folder with people in it; no server is running. */
export interface SeededServer {
  readonly folder: string;
  readonly storePath: string;
  /** Of one account, all with a session. */
  readonly devices: readonly SeededDevice[];
  /** A group of them all. */
  readonly groupId: Uint8Array;
}

export async function* serverBench(options: BenchOptions): AsyncGenerator<BenchResult> {
  const { path: folder, remove } = temporaryFolder();
  try {
    yield* serverStartBench(folder, options);
    const seeded = await seed(path.join(folder, 'server'));
    yield* serverDurableBench(seeded, options);
    yield* serverConnectionsBench(seeded, options);
    yield* serverMemoryBench(seeded, options);
  } finally {
    remove();
  }
}

async function seed(folder: string): Promise<SeededServer> {
  // The first start makes secrets and certificate.
  await (await ServerProcess.start(folder)).stop();
  const storePath = path.join(folder, 'qpc.db');
  return withStore(storePath, async (store) => {
    const devices = await seedDevices(store, 'bench', FAN_OUT_DEVICES);
    return { folder, storePath, devices, groupId: await seedGroup(store, devices) };
  });
}
