// Drives the page in Chromium as a person would, and fails with a message of what is wrong. Screenshots are in
// browser/out/shots.
import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { chromium } from 'playwright-core';

const SHOTS = 'browser/out/shots';

function findChromium() {
  const names = ['/usr/bin/chromium', '/usr/bin/chromium-headless-shell', '/usr/bin/google-chrome'];
  const found = [process.env.CHROME_BIN, ...names].find((f) => f && existsSync(f));
  if (!found) {
    console.error('The browser test needs Chromium: apt-get install chromium, or set CHROME_BIN.');
    process.exit(1);
  }
  return found;
}

const executablePath = findChromium();
execFileSync(process.env.GO ?? 'go', ['build', '-o', 'browser/out/host', './cmd/host'], { stdio: 'inherit' });
// The host ends when its standard input does, so that nothing is left behind however this ends.
const host = spawn('browser/out/host', [], { stdio: ['pipe', 'pipe', 'inherit'] });
const ended = new Promise((resolve) => host.on('exit', resolve));
const place = await new Promise((resolve, reject) => {
  createInterface(host.stdout).once('line', (line) => resolve(JSON.parse(line)));
  host.once('exit', (code) => reject(new Error(`the host ended with ${code}`)));
});

const browser = await chromium.launch({ executablePath, args: ['--no-sandbox'] });
const problems = [];
let page;
try {
  page = await browser.newPage({ viewport: { width: 1220, height: 1000 } });
  page.setDefaultTimeout(20000);
  page.on('pageerror', (e) => problems.push(`page error: ${e.stack ?? e.message}`));
  // Answers that say what is wrong, and what Grafana has and its packages have not: fonts and an icon.
  const expected = /\/health$|\/api\/ds\/query|\/public\/fonts\/|\/spinner\.svg$/;
  page.on('requestfailed', (r) => expected.test(r.url()) || problems.push(`request failed: ${r.url()}`));
  page.on('response', (r) => r.status() >= 400 && !expected.test(r.url()) && problems.push(`${r.status()} ${r.url()}`));
  await page.goto(place.page);
  await page.waitForFunction(() => window.page || window.fatal, null, { timeout: 60000 });
  assert.equal(await page.evaluate(() => window.fatal), undefined);

  await step('the bundle is a data source of the shared packages', async () => {
    assert.deepEqual(await page.evaluate(() => [window.page.isPlugin, window.page.isBackend]), [true, true]);
  });

  await step('settings: what is wrong is said, a URL and a token are enough', async () => {
    const saveAndTest = async (want) => {
      await page.getByRole('button', { name: 'Save & test' }).click();
      await page.getByTestId('message').filter({ hasText: want }).waitFor();
    };
    await saveAndTest('the URL is missing');
    await page.fill('#braid-url', place.page);
    await saveAndTest('is not a Braid server');
    await page.fill('#braid-url', place.braid);
    await saveAndTest('no token or password is set');
    await page.fill('#braid-token', 'guess');
    await saveAndTest('check the token');
    await page.getByRole('button', { name: 'Reset' }).click();
    await page.fill('#braid-token', place.token);
    await saveAndTest('answers queries (tenant default)');
    await page.getByRole('button', { name: 'More settings' }).click();
    await page.locator('label[for=braid-basic]').last().click();
    await page.locator('label[for=braid-ca]').last().click();
    await shot('settings', 'config');
    await page.locator('label[for=braid-basic]').last().click();
    await page.locator('label[for=braid-ca]').last().click();
    await page.getByRole('button', { name: 'More settings' }).click();
  });

  await step('query editor', async () => {
    const becomes = (want) =>
      page.waitForFunction((want) => Object.entries(want).every(([k, v]) => window.page.query()[k] === v), want);
    await page.fill('#braid-expr', 'sum by (service_name) (rate(shop_requests_total[$__rate_interval]))');
    await page.keyboard.press('Shift+Enter');
    await page.waitForFunction(() => window.ran === 1);
    await becomes({ expr: 'sum by (service_name) (rate(shop_requests_total[$__rate_interval]))' });
    await shot('editor-metrics', 'query');
    await choose('Logs');
    await page.fill('#braid-expr', '{service_name="cart"} |= "waiting"');
    await becomes({ queryType: 'logs' });
    await shot('editor-logs', 'query');
    await choose('Search');
    await page.fill('#braid-tags', 'status=error');
    await page.locator('#braid-service').click();
    await page.getByRole('option', { name: 'frontend' }).waitFor();
    await page.screenshot({ path: `${SHOTS}/editor-search.png` });
    await page.getByRole('option', { name: 'frontend' }).click();
    await becomes({ service: 'frontend' });
    await choose('Trace');
    await page.fill('#braid-traceId', place.trace);
    await choose('Log lines');
    await becomes({ queryType: 'traceLogs' });
    await shot('editor-trace', 'query');
    await choose('Resource');
    await page.fill('#braid-resource', 'cart');
    await choose('service');
    await becomes({ resource: 'cart', kind: 'service' });
    await shot('editor-resource', 'query');
    assert.equal(await page.locator('.broken').count(), 0);
  });

  await step('variables', async () => {
    const values = (q) => page.evaluate((q) => window.page.variable(q), q);
    assert.deepEqual(await values('services()'), ['cart', 'database', 'frontend']);
    assert.ok((await values('metrics(^shop_)')).includes('shop_requests_total'));
    assert.deepEqual(await values('label_values(shop_requests_total{service_name="$service"}, route)'), ['/cart']);
    assert.deepEqual(await values('log_label_values({service_name="$service"}, k8s_pod_name)'), ['cart-0']);
  });

  await step('metrics are drawn', async () => {
    const got = await ask('metrics', [
      {
        queryType: 'metrics',
        expr: 'sum by (service_name) (rate(shop_requests_total[$__rate_interval]))',
        legendFormat: '{{service_name}}',
      },
    ]);
    assert.deepEqual(got.errors, []);
    assert.deepEqual(
      got.frames.map((f) => f.meta.type),
      Array(3).fill('timeseries-multi')
    );
    await page.locator('[data-testid=drawn-metrics] canvas').first().waitFor();
    for (const service of ['cart', 'database', 'frontend']) {
      await page.getByTestId('drawn-metrics').getByText(service, { exact: true }).waitFor();
    }
    await settle();
    const colours = await page.evaluate(() => {
      const canvas = document.querySelector('[data-testid=drawn-metrics] canvas');
      const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
      const seen = new Set();
      for (let i = 0; i < data.length; i += 4) {
        if (data[i + 3] === 255) {
          seen.add(`${data[i]},${data[i + 1]},${data[i + 2]}`);
        }
      }
      return seen.size;
    });
    assert.ok(colours >= 3, `three lines have three colours at least, the canvas has ${colours}`);
    await shot('metrics', 'drawn-metrics');
    const slow = await ask('exemplars', [
      {
        queryType: 'metrics',
        expr: 'histogram_quantile(0.9, sum by (le) (rate(http_server_request_duration_seconds_bucket[5m])))',
        exemplars: true,
      },
    ]);
    const exemplars = slow.frames.find((f) => f.meta.dataTopic === 'annotations');
    assert.equal(exemplars?.first.trace_id, place.trace);
  });

  await step('log lines are drawn, with the link to their trace', async () => {
    const got = await ask('logs', [{ queryType: 'logs', expr: '{service_name="$service"}', maxLines: 50 }]);
    assert.deepEqual(got.errors, []);
    assert.equal(got.frames[0].meta.type, 'log-lines');
    assert.equal(got.frames[0].meta.limit, 50);
    assert.equal(got.frames[0].rows, 3);
    await page.getByTestId('drawn-logs').getByText('still waiting').first().waitFor();
    await shot('logs', 'drawn-logs');
    const link = await followed('drawn-logs', place.trace);
    assert.deepEqual(link, { queryType: 'trace', traceId: place.trace });
    const trace = await ask('trace', [link]);
    assert.deepEqual(trace.errors, []);
    assert.equal(trace.frames[0].rows, 4);
    assert.equal(trace.frames[0].meta.preferredVisualisationType, 'trace');
    await page.getByTestId('drawn-trace').getByText('SELECT cart').waitFor();
    await shot('trace', 'drawn-trace');
  });

  await step('a span leads to its log lines, a trace to its metrics', async () => {
    const link = await followed('drawn-trace', 'eee19b7ec3c1b177');
    assert.deepEqual(link, { queryType: 'traceLogs', traceId: place.trace, spanId: 'eee19b7ec3c1b177' });
    const lines = await ask('lines of a span', [link]);
    assert.match(lines.frames[0].first.body, /^deadlock found/);
    assert.equal(lines.frames[0].first.severity, 'critical');
    const metrics = await ask('metrics around the trace', [{ queryType: 'traceMetrics', traceId: place.trace }]);
    assert.equal(metrics.frames.length, 12);
    await settle();
    await shot('trace-metrics', 'drawn-metrics around the trace');
  });

  await step('search and resource are drawn', async () => {
    const found = await ask('search', [{ queryType: 'search', minDuration: '500ms' }]);
    assert.equal(found.frames[0].first.traceID, place.trace);
    assert.deepEqual(await followed('drawn-search', place.trace), { queryType: 'trace', traceId: place.trace });
    await shot('search', 'drawn-search');
    const cart = await ask('resource', [{ queryType: 'resource', resource: 'cart', kind: 'service' }]);
    assert.deepEqual(cart.errors, []);
    assert.equal(cart.frames[0].first.logLines, 3);
    await settle();
    await shot('resource', 'drawn-resource');
  });

  await step('a query that fails leaves the others', async () => {
    const got = await ask('mixed', [
      { queryType: 'metrics', expr: 'sum(' },
      { queryType: 'metrics', expr: 'vector(1)' },
    ]);
    assert.equal(got.errors.length, 1);
    assert.match(got.errors[0], /^A: .*parse error/);
    assert.equal(got.frames.length, 1);
  });

  assert.equal(await page.locator('.broken').count(), 0);
  assert.deepEqual(problems, []);
  console.log('browser test passed; screenshots are in grafana-plugin/' + SHOTS);
} catch (e) {
  await page?.screenshot({ path: `${SHOTS}/failure.png`, fullPage: true }).catch(() => undefined);
  console.error(e, problems);
  process.exitCode = 1;
} finally {
  await browser.close();
  host.stdin.end();
  await ended;
}

async function step(name, run) {
  const began = Date.now();
  await run();
  console.log(`ok ${name} (${Date.now() - began} ms)`);
}

async function shot(name, testid) {
  await page.getByTestId(testid).screenshot({ path: `${SHOTS}/${name}.png` });
}

/** Clicks one of several buttons of the query editor. */
function choose(name) {
  return page.getByTestId('query').getByRole('radio', { name, exact: true }).click();
}

function ask(name, targets) {
  return page.evaluate(([name, targets, now]) => window.page.ask(name, targets, now), [name, targets, place.now]);
}

/** The query that the link on a cell opens in Explore. */
async function followed(testid, text) {
  const cell = page.getByTestId(testid).locator('a', { hasText: text }).first();
  const href = await cell.getAttribute('href');
  const left = JSON.parse(new URL(href, place.page).searchParams.get('left'));
  assert.equal(left.datasource, 'braid-uid');
  const { refId, datasource, ...query } = left.queries[0];
  return query;
}

/** Two frames of the browser: uPlot draws in the one after the layout. */
function settle() {
  return page.evaluate(() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => done()))));
}
