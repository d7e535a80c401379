// packages/mls with the noble provider in headless Chromium. There is no bundle: the page is served from the loopback
// interface, types stripped by Node, package names resolved by an import map, and it posts what it measured.
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { accessSync, constants, readFileSync } from 'node:fs';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { stripTypeScriptTypes } from 'node:module';
import path from 'node:path';
import type { BrowserRates, BrowserReport } from './mls-browser.web.ts';
import { type BenchOptions, type BenchResult, figure, median } from './result.ts';
import { temporaryFolder } from './temporary-folder.ts';

const ROOT = path.dirname(import.meta.dirname);
const PAGE = 'bench/mls-browser.web.ts';
const MEASURE_MS_MAX = 180_000;

const IMPORTS = {
  '@quicprochat/mls': '/packages/mls/src/index.ts',
  '@quicprochat/crypto': '/packages/crypto/src/index.ts',
  '@quicprochat/crypto/noble': '/packages/crypto/src/provider-noble.ts',
  '@noble/ciphers/': '/node_modules/@noble/ciphers/',
  '@noble/curves/': '/node_modules/@noble/curves/',
  '@noble/hashes/': '/node_modules/@noble/hashes/',
  '@noble/post-quantum/': '/node_modules/@noble/post-quantum/',
};

const SERVED = /^\/(?:packages\/(?:mls|crypto)\/src\/[a-z0-9-]+\.ts|node_modules\/@noble\/[a-z0-9/_-]+\.js)$/;

export async function* mlsBrowserBench({ quick }: BenchOptions): AsyncGenerator<BenchResult> {
  const chromium = findChromium();
  if (chromium === undefined) {
    console.error('  left out: no Chromium here. Debian: apt-get install chromium; or name one in QPC_CHROMIUM.');
    return;
  }
  const report = await measured(chromium, quick ? { rounds: 1, count: 40 } : { rounds: 9, count: 300 });
  if (report.kind === 'failed') throw new Error(`the page failed: ${report.reason}`);
  for (const rates of report.rates) yield* figures(rates);
}

function* figures(rates: BrowserRates): Generator<BenchResult> {
  const suite = rates.suite.includes('MLKEM') ? 'post-quantum suite' : 'suite 0x0001';
  for (const [name, ours, bare] of [
    ['send', rates.send, rates.bareSend],
    ['receive', rates.receive, rates.bareReceive],
  ] as const) {
    yield figure({
      name: `${name} in Chromium, ${suite}`,
      value: median(ours),
      unit: 'messages/s',
      baseline: { name: 'the primitives of noble', value: median(bare) },
      target: { of: 'value', atLeast: 500 },
    });
  }
}

function findChromium(): string | undefined {
  const named = process.env['QPC_CHROMIUM'];
  if (named !== undefined && named !== '') return named;
  const folders = (process.env['PATH'] ?? '').split(path.delimiter);
  const names = ['chromium', 'chromium-browser', 'google-chrome'];
  return names.flatMap((name) => folders.map((folder) => path.join(folder, name))).find(isExecutable);
}

function isExecutable(file: string): boolean {
  try {
    accessSync(file, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}

async function measured(
  chromium: string,
  scale: { readonly rounds: number; readonly count: number },
): Promise<BrowserReport> {
  const { promise, resolve, reject } = Promise.withResolvers<BrowserReport>();
  const server = createServer((request, response) => {
    answer(request, response, scale, resolve).catch((error: unknown) => {
      response.writeHead(500).end();
      reject(error instanceof Error ? error : new Error(String(error)));
    });
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const profile = temporaryFolder();
  const browser = startBrowser(
    chromium,
    profile.path,
    `http://127.0.0.1:${(server.address() as AddressInfo).port}/`,
    reject,
  );
  const late = setTimeout(() => reject(new Error('no answer from the page')), MEASURE_MS_MAX);
  try {
    return await promise;
  } finally {
    clearTimeout(late);
    server.close();
    server.closeAllConnections();
    await stopped(browser);
    profile.remove();
  }
}

async function answer(
  request: IncomingMessage,
  response: ServerResponse,
  scale: { readonly rounds: number; readonly count: number },
  report: (report: BrowserReport) => void,
): Promise<void> {
  const url = new URL(request.url ?? '/', 'http://127.0.0.1');
  if (request.method === 'POST' && url.pathname === '/report') {
    let body = '';
    for await (const chunk of request) body += String(chunk);
    response.end();
    report(JSON.parse(body) as BrowserReport);
  } else if (url.pathname === '/') {
    const page = `<!doctype html><meta charset="utf-8"><title>bench</title>
<script type="importmap">${JSON.stringify({ imports: IMPORTS })}</script>
<script type="module" src="/${PAGE}?rounds=${scale.rounds}&count=${scale.count}"></script>`;
    response.setHeader('content-type', 'text/html').end(page);
  } else if (url.pathname === `/${PAGE}` || SERVED.test(url.pathname)) {
    const source = readFileSync(path.join(ROOT, url.pathname), 'utf8');
    response
      .setHeader('content-type', 'text/javascript')
      .end(url.pathname.endsWith('.ts') ? stripTypeScriptTypes(source) : source);
  } else {
    response.writeHead(404).end();
  }
}

function startBrowser(chromium: string, profile: string, url: string, failed: (error: Error) => void): ChildProcess {
  const options = ['--headless=new', '--disable-gpu', '--no-first-run', '--disable-background-networking'];
  // Chromium refuses its sandbox to root; the page is our own.
  if (process.getuid?.() === 0) options.push('--no-sandbox');
  const browser = spawn(chromium, [...options, `--user-data-dir=${profile}`, url], {
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  const kill = (): unknown => browser.kill('SIGKILL');
  process.on('exit', kill);
  browser.once('exit', () => process.off('exit', kill));
  let said = '';
  browser.stderr?.on('data', (chunk: Buffer) => (said = (said + chunk.toString()).slice(-2000)));
  browser.once('error', failed);
  browser.once('exit', (code) => failed(new Error(`Chromium ended (${code}): ${said}`)));
  return browser;
}

async function stopped(browser: ChildProcess): Promise<void> {
  if (browser.exitCode !== null || browser.signalCode !== null) return;
  const exit = once(browser, 'exit');
  browser.kill('SIGTERM');
  const kill = setTimeout(() => browser.kill('SIGKILL'), 5000);
  await exit;
  clearTimeout(kill);
}
