import { methods } from '@quicprochat/transport';
import { deviceHandler } from '../../handler.ts';

export const listDevices = deviceHandler(methods.device.listDevices, async ({ server, session }) => {
  const devices = await server.store.listDevices(session.address.identityKey);
  return {
    devices: devices.map((device) => ({
      deviceId: device.deviceId,
      name: device.name,
      deviceCertificate: device.certificate,
      registeredAtMs: BigInt(device.registeredAtMs),
      lastSeenDayMs: BigInt(device.lastSeenDayMs),
    })),
  };
});
