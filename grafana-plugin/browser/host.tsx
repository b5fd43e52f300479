// The page of the browser test. It does what Grafana's front end does with a data source plugin: it shares its own
// packages through SystemJS, loads the plugin's bundle, mounts the editors, sends queries, and draws the frames.
import './boot';
import React from 'react';
import ReactDOM from 'react-dom';
import { createRoot } from 'react-dom/client';
import * as rxjs from 'rxjs';
import lodash from 'lodash';
import moment from 'moment';
import * as emotionCss from '@emotion/css';
import * as gData from '@grafana/data';
import * as gRuntime from '@grafana/runtime';
import * as gUI from '@grafana/ui';
import * as gI18n from '@grafana/i18n';
// Last: its AMD part defines window.define, which makes UMD modules such as lodash skip CommonJS.
import 'systemjs/dist/system.js';
import 'systemjs/dist/extras/amd.js';
import 'systemjs/dist/extras/named-exports.js';

const ID = 'braidobs-braid-datasource';
const UID = 'braid-uid';

/* eslint-disable @typescript-eslint/no-explicit-any -- the page pokes into globals and into internals of Grafana */
const w = window as any;
const runtime = gRuntime as any;
const ui = gUI as any;

const shared: Record<string, unknown> = {
  react: React,
  'react-dom': ReactDOM,
  rxjs,
  lodash,
  moment,
  '@emotion/css': emotionCss,
  '@grafana/data': gData,
  '@grafana/runtime': gRuntime,
  '@grafana/ui': gUI,
};
const imports: Record<string, string> = {};
for (const [name, module] of Object.entries(shared)) {
  imports[name] = 'package:' + name;
  w.System.set('package:' + name, { default: module, __useDefault: true });
}
w.System.addImportMap({ imports });

async function call(o: any) {
  const url = new URL('/' + o.url.replace(/^\//, ''), location.href);
  for (const [k, v] of Object.entries(o.params ?? {})) {
    url.searchParams.append(k, String(v));
  }
  const r = await fetch(url, {
    method: o.method ?? 'GET',
    headers: { 'Content-Type': 'application/json', ...(o.headers ?? {}) },
    body: o.data ? JSON.stringify(o.data) : undefined,
  });
  const data = await r.json();
  if (!r.ok) {
    throw { status: r.status, statusText: r.statusText, data, config: o };
  }
  return { data, status: r.status, ok: r.ok, config: o };
}

runtime.setBackendSrv({
  fetch: (o: any) => rxjs.from(call(o)),
  get: async (url: string, params: any) => (await call({ url, params })).data,
});
runtime.setTemplateSrv({
  replace: (s: any, _: unknown, format: any) =>
    (s ?? '').toString().replace(/\$service\b/g, () => (typeof format === 'function' ? format('cart', {}) : 'cart')),
  getVariables: () => [],
  containsTemplate: () => false,
  updateTimeRange: () => undefined,
});

const theme = gData.createTheme({ colors: { mode: 'dark' } });

class Catch extends React.Component<{ children: React.ReactNode }, { error?: Error }> {
  state: { error?: Error } = {};
  static getDerivedStateFromError(error: Error) {
    return { error };
  }
  render() {
    return this.state.error ? <pre className="broken">{String(this.state.error.stack)}</pre> : this.props.children;
  }
}

/** The time series panel's defaults. */
const withColour = (f: gData.DataFrame) => ({
  ...f,
  fields: f.fields.map((x) =>
    x.type === gData.FieldType.number && f.meta?.type === 'timeseries-multi'
      ? {
          ...x,
          config: { ...x.config, color: { mode: gData.FieldColorModeId.PaletteClassic }, custom: { lineWidth: 2 } },
        }
      : x
  ),
});

/** Frames as panels get them. */
const prepare = (frames: any[]) =>
  gData.applyFieldOverrides({
    data: frames.map((f) => withColour(gData.toDataFrame(f))),
    fieldConfig: { defaults: {}, overrides: [] },
    replaceVariables: (s: string, vars: any) =>
      s.replaceAll('${__value.raw}', () => {
        const at = vars?.__dataContext?.value;
        return at ? String(at.field.values[at.rowIndex]) : '';
      }),
    theme,
    timeZone: 'utc',
  });

function Drawing({ name, frames, range }: { name: string; frames: any[]; range: gData.TimeRange }) {
  const shown = prepare(frames.filter((f) => f.meta?.dataTopic !== 'annotations'));
  const graphs = shown.filter((f) => f.meta?.type === 'timeseries-multi' && f.fields.length > 0);
  const tables = shown.filter((f) => f.meta?.type !== 'timeseries-multi' && f.fields.length > 0);
  return (
    <section data-testid={`drawn-${name}`}>
      <h4>{name}</h4>
      {graphs.length > 0 && (
        <ui.TimeSeries
          frames={graphs}
          timeRange={range}
          timeZone="utc"
          width={1140}
          height={260}
          legend={{ displayMode: 'list', placement: 'bottom', calcs: [], showLegend: true }}
          options={{}}
        />
      )}
      {tables.map((f, i) => (
        <ui.Table key={i} data={f} width={1140} height={Math.min(60 + 36 * f.length, 330)} />
      ))}
    </section>
  );
}

async function main() {
  await gI18n.initPluginTranslations('browser-test');
  const meta = await (await fetch(`/public/plugins/${ID}/plugin.json`)).json();
  const settings: any = {
    id: 1,
    uid: UID,
    type: ID,
    name: 'Braid',
    meta: { ...meta, module: '', baseUrl: '' },
    url: '',
    access: 'proxy',
    jsonData: {},
    readOnly: false,
  };
  const module = await w.System.import(`/public/plugins/${ID}/module.js`);
  const plugin = module.plugin as gData.DataSourcePlugin<any>;
  const ds: any = new plugin.DataSourceClass(settings);
  ds.meta = meta;
  runtime.setDataSourceSrv({
    get: async () => ds,
    getList: () => [settings],
    getInstanceSettings: () => settings,
  });
  const { ConfigEditor, QueryEditor } = plugin.components as any;

  const App = () => {
    const [options, setOptions] = React.useState<any>({ ...settings, secureJsonFields: {}, secureJsonData: {} });
    const [query, setQuery] = React.useState<any>({ refId: 'A', ...ds.getDefaultQuery('explore') });
    const [drawings, setDrawings] = React.useState<Array<{ name: string; frames: any[]; range: gData.TimeRange }>>([]);
    const [message, setMessage] = React.useState('');

    /** "Save & test": settings go to the server, secrets are not kept in the page. */
    const save = async () => {
      await call({ url: `/api/datasources/uid/${UID}`, method: 'PUT', data: options });
      const known = Object.entries(options.secureJsonData).map(([k, v]) => [k, Boolean(v)]);
      setOptions({
        ...options,
        secureJsonData: {},
        secureJsonFields: { ...options.secureJsonFields, ...Object.fromEntries(known) },
      });
      try {
        setMessage((await ds.testDatasource()).message);
      } catch (e: any) {
        setMessage(e.data?.message ?? e.message);
      }
    };

    w.page = {
      isPlugin: plugin instanceof gData.DataSourcePlugin,
      isBackend: ds instanceof gRuntime.DataSourceWithBackend,
      query: () => query,
      variable: async (q: string) => (await ds.metricFindQuery(q)).map((v: any) => v.text),
      /** Sends queries as Explore does, and draws the answer under name. */
      ask: async (name: string, targets: any[], now: number) => {
        const range = gData.makeTimeRange(gData.dateTime(now - 20 * 60e3), gData.dateTime(now + 1000));
        const response: any = await rxjs.lastValueFrom(
          ds.query({
            requestId: name,
            interval: '15s',
            intervalMs: 15000,
            maxDataPoints: 400,
            range,
            scopedVars: {},
            targets: targets.map((t, i) => ({
              refId: String.fromCharCode(65 + i),
              datasource: { uid: UID, type: ID },
              ...t,
            })),
            timezone: 'utc',
            app: 'explore',
            startTime: Date.now(),
          })
        );
        setDrawings((old) => [...old.filter((d) => d.name !== name), { name, frames: response.data, range }]);
        return {
          errors: (response.errors ?? []).map((e: any) => `${e.refId}: ${e.message ?? e.data?.message}`),
          frames: response.data.map((f: any) => ({
            name: f.name,
            rows: f.length,
            meta: f.meta,
            fields: f.fields.map((x: any) => x.name),
            first: Object.fromEntries(f.fields.map((x: any) => [x.name, x.values[0]])),
          })),
        };
      },
    };

    return (
      <gData.ThemeContext.Provider value={theme}>
        <ui.GlobalStyles />
        <ui.PortalContainer />
        <section data-testid="config">
          <h4>Settings</h4>
          <Catch>
            <ConfigEditor options={options} onOptionsChange={setOptions} />
          </Catch>
          <ui.Button onClick={save}>Save &amp; test</ui.Button>
          <p data-testid="message">{message}</p>
        </section>
        <section data-testid="query">
          <h4>Query</h4>
          <Catch>
            <QueryEditor
              datasource={ds}
              query={query}
              onChange={setQuery}
              onRunQuery={() => {
                w.ran = (w.ran ?? 0) + 1;
              }}
              app="explore"
            />
          </Catch>
        </section>
        {drawings.map((d) => (
          <Catch key={d.name}>
            <Drawing {...d} />
          </Catch>
        ))}
      </gData.ThemeContext.Provider>
    );
  };
  document.body.style.cssText = `background:${theme.colors.background.primary};padding:16px;width:1180px;height:auto;overflow:auto`;
  createRoot(document.getElementById('root')!).render(<App />);
}

main().catch((e) => {
  w.fatal = String(e?.stack ?? JSON.stringify(e));
});
