// Bundles the page with the published @grafana packages into browser/out.
import { build } from 'esbuild';
import { cpSync, mkdirSync, rmSync } from 'node:fs';

const grafana = /^@grafana\/(data|ui|runtime|schema|i18n|e2e-selectors)(\/|$)/;

rmSync('browser/out', { recursive: true, force: true });
mkdirSync('browser/out/shots', { recursive: true });
await build({
  entryPoints: ['browser/host.tsx'],
  outfile: 'browser/out/host.js',
  bundle: true,
  format: 'iife',
  platform: 'browser',
  jsx: 'transform',
  logLevel: 'warning',
  define: { 'process.env.NODE_ENV': '"development"', global: 'window' },
  mainFields: ['module', 'browser', 'main'],
  conditions: ['browser'],
  loader: { '.svg': 'dataurl', '.png': 'dataurl', '.woff': 'dataurl', '.woff2': 'dataurl', '.ttf': 'dataurl' },
  plugins: [
    {
      name: 'cjs',
      setup(b) {
        // The CommonJS builds get on with react-table and friends, the .mjs builds do not.
        b.onResolve({ filter: grafana }, (a) =>
          a.pluginData === 1
            ? undefined
            : b.resolve(a.path, { kind: 'require-call', resolveDir: a.resolveDir, importer: a.importer, pluginData: 1 })
        );
      },
    },
  ],
});
cpSync('node_modules/@grafana/ui/dist/public', 'browser/out/public/build', { recursive: true }); // icons
cpSync('browser/index.html', 'browser/out/index.html');
