import assert from 'node:assert/strict';
import { test } from 'node:test';
import { LatencyHistogram } from './latency-histogram.ts';

test('buckets count what took at most so long, and the last one everything', () => {
  const histogram = new LatencyHistogram('rpc_duration_seconds', 'From the request to its answer');
  for (const seconds of [0.0001, 0.0005, 0.003, 61]) histogram.observe('Ack', 'ok', seconds);
  histogram.observe('Ack', 'internal', 0.003);
  const lines = histogram.exposition().split('\n');
  assert.deepEqual(lines.slice(0, 2), [
    '# HELP rpc_duration_seconds From the request to its answer',
    '# TYPE rpc_duration_seconds histogram',
  ]);
  const value = (series: string) => lines.find((line) => line.startsWith(`${series} `))?.slice(series.length + 1);
  for (const [le, expected] of [
    ['0.0005', '2'],
    ['0.001', '2'],
    ['0.005', '3'],
    ['60', '3'],
    ['+Inf', '4'],
  ] as const) {
    assert.equal(value(`rpc_duration_seconds_bucket{le="${le}",method="Ack",status="ok"}`), expected, le);
  }
  assert.equal(value('rpc_duration_seconds_count{method="Ack",status="ok"}'), '4');
  assert.equal(Number(value('rpc_duration_seconds_sum{method="Ack",status="ok"}')).toFixed(4), '61.0036');
  assert.equal(value('rpc_duration_seconds_count{method="Ack",status="internal"}'), '1');
  assert.equal(lines.length, 2 + 2 * 19 + 1);
});
