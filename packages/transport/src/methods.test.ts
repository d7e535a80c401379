import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { Status, StatusSchema } from '@quicprochat/proto';
import { statusName } from './errors.ts';
import { PAYLOAD_BYTES_MAX } from './framing.ts';
import { indexMethods, methods, methodsById } from './methods.ts';

describe('the table of methods', () => {
  test('has the numbers of DESIGN section 4', () => {
    const byName = new Map([...methodsById.values()].map((method) => [method.name, method.id]));
    assert.equal(byName.get('qpc.v1.AuthService/OpaqueRegisterStart'), 100);
    assert.equal(byName.get('qpc.v1.DeliveryService/SubmitCommit'), 207);
    assert.equal(byName.get('qpc.v1.P2pService/Health'), 802);
    assert.equal(byName.get('qpc.v1.AccountService/DeleteAccount'), 950);
    assert.equal(methods.delivery.batchEnqueue.id, 205);
    assert.equal(methodsById.get(205), methods.delivery.batchEnqueue);
  });

  test('every method has limits that the framing can carry, a timeout and a rule', () => {
    assert.ok(methodsById.size >= 50, `${methodsById.size}`);
    for (const method of methodsById.values()) {
      assert.ok(method.requestMax > 0 && method.requestMax <= PAYLOAD_BYTES_MAX, method.name);
      assert.ok(method.responseMax > 0 && method.responseMax <= PAYLOAD_BYTES_MAX, method.name);
      assert.ok(method.timeoutMs > 0 && method.timeoutMs <= 120_000, method.name);
      assert.ok(method.auth.length > 0, method.name);
    }
  });

  test('two methods with one number are refused', () => {
    const { ack, enqueue } = methods.delivery;
    assert.throws(() => indexMethods([ack, { ...enqueue, id: ack.id }]), /share an id/);
    assert.throws(() => indexMethods([{ ...ack, id: 0 }]), /bad method id/);
    assert.throws(() => indexMethods([{ ...ack, id: 65_536 }]), /bad method id/);
  });
});

test('every status of the contract has its words', () => {
  for (const value of StatusSchema.values) {
    assert.ok(!statusName(value.number).startsWith('status '), value.name);
  }
  assert.equal(statusName(Status.DEADLINE_EXCEEDED), 'deadline exceeded');
  assert.equal(statusName(99), 'status 99');
});
