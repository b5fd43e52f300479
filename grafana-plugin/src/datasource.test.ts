import {
  CoreApp,
  DataQueryRequest,
  DataSourceInstanceSettings,
  dateTime,
  hasLogsLabelTypesSupport,
  LoadingState,
} from '@grafana/data';
import { BackendSrv, FetchResponse, setBackendSrv, setTemplateSrv, TemplateSrv } from '@grafana/runtime';
import { lastValueFrom, Observable, of } from 'rxjs';
import { DataSource, inMatcher } from './datasource';
import { BraidOptions, BraidQuery } from './types';
import pluginJson from './plugin.json';

type Variable = { value: string | string[]; multi?: boolean };

/** The part of Grafana's template service that is used: $name is replaced by what format makes of its value. */
function templates(variables: Record<string, Variable>): TemplateSrv {
  const name = /\$\{?(\w+)\}?/g;
  return {
    getVariables: () => [],
    containsTemplate: (s?: string) => Boolean(s?.match(name)?.some((m) => m.replace(/[${}]/g, '') in variables)),
    updateTimeRange: () => undefined,
    replace: (s = '', _?: unknown, format?: string | Function) =>
      s.replace(name, (match, key: string) => {
        const v = variables[key];
        if (!v) {
          return match;
        }
        return typeof format === 'function' ? format(v.value, v) : String(v.value);
      }),
  };
}

const settings = {
  id: 1,
  uid: 'braid-uid',
  type: pluginJson.id,
  name: 'Braid',
  meta: { id: pluginJson.id },
  jsonData: { timeInterval: '30s' },
} as unknown as DataSourceInstanceSettings<BraidOptions>;

interface Call {
  url: string;
  data?: { queries: BraidQuery[] };
  params?: Record<string, string>;
}

let calls: Call[];

/** Grafana's server: answers each call with what the test says. */
function server(answer: (call: Call) => unknown) {
  calls = [];
  setBackendSrv({
    fetch: (call: Call): Observable<FetchResponse> => {
      calls.push(call);
      return of({ data: answer(call), status: 200, ok: true } as FetchResponse);
    },
  } as unknown as BackendSrv);
}

function request(targets: BraidQuery[]): DataQueryRequest<BraidQuery> {
  const from = dateTime('2026-01-01T00:00:00Z');
  const to = dateTime('2026-01-01T01:00:00Z');
  return {
    app: CoreApp.Explore,
    requestId: 'r1',
    interval: '1m',
    intervalMs: 60000,
    maxDataPoints: 100,
    range: { from, to, raw: { from, to } },
    scopedVars: {},
    targets,
    timezone: 'utc',
    startTime: 0,
  };
}

const frame = (meta: object) => ({
  schema: { refId: 'A', meta, fields: [{ name: 'body', type: 'string' }] },
  data: { values: [['hello']] },
});

beforeEach(() => {
  setTemplateSrv(
    templates({ service: { value: 'ca"rt' }, pods: { value: ['a.b', 'c'], multi: true }, id: { value: 'abc' } })
  );
  server(() => ({ results: {} }));
});

describe('queries', () => {
  it('go to the backend with their variables replaced', async () => {
    const ds = new DataSource(settings);
    await lastValueFrom(
      ds.query(
        request([
          { refId: 'A', queryType: 'metrics', expr: 'up{service="$service", pod=~"$pods"}[$__rate_interval]' },
          { refId: 'B', queryType: 'trace', traceId: '$id' },
        ])
      )
    );
    expect(calls).toHaveLength(1);
    expect(calls[0].url).toContain('/api/ds/query');
    const [a, b] = calls[0].data!.queries;
    expect(a.expr).toBe('up{service="ca\\"rt", pod=~"(a\\\\.b|c)"}[$__rate_interval]');
    expect(a.datasource).toEqual({ type: pluginJson.id, uid: 'braid-uid' });
    expect(b.traceId).toBe('abc');
  });

  it('carry the limit of log lines to where Grafana looks for it', async () => {
    server(() => ({
      results: {
        A: {
          status: 200,
          frames: [
            frame({ preferredVisualisationType: 'logs', custom: { limit: 7 } }),
            frame({ custom: { limit: 7 } }),
          ],
        },
      },
    }));
    const got = await lastValueFrom(
      new DataSource(settings).query(request([{ refId: 'A', queryType: 'logs', expr: '{a="b"}' }]))
    );
    expect(got.state).toBe(LoadingState.Done);
    expect(got.data[0].meta.limit).toBe(7);
    expect(got.data[0].fields[0].values).toEqual(['hello']);
    expect(got.data[1].meta.limit).toBeUndefined();
  });

  it('that fail leave the others alone', async () => {
    server(() => ({ results: { A: { status: 400, error: 'parse error' }, B: { status: 200, frames: [frame({})] } } }));
    const got = await lastValueFrom(
      new DataSource(settings).query(
        request([
          { refId: 'A', expr: 'sum(' },
          { refId: 'B', expr: 'up' },
        ])
      )
    );
    expect(got.errors?.[0]).toMatchObject({ refId: 'A', message: 'parse error' });
    expect(got.data).toHaveLength(1);
  });

  it.each<[string, Partial<BraidQuery>, boolean]>([
    ['PromQL', { queryType: 'metrics', expr: 'up' }, true],
    ['PromQL without a type', { expr: 'up' }, true],
    ['hidden', { expr: 'up', hide: true }, false],
    ['nothing', {}, false],
    ['empty PromQL', { queryType: 'metrics', expr: ' ' }, false],
    ['empty LogQL', { queryType: 'logs', traceId: 'abc' }, false],
    ['the link to a trace', { queryType: 'trace', traceId: 'abc' }, true],
    ['the link to the logs of a span', { queryType: 'traceLogs', traceId: 'abc', spanId: 'def' }, true],
    ['the link to metrics', { queryType: 'traceMetrics', traceId: 'abc' }, true],
    ['no trace ID', { queryType: 'trace' }, false],
    ['the link to a resource', { queryType: 'resource', resource: 'cart' }, true],
    ['no resource', { queryType: 'resource' }, false],
    ['any trace', { queryType: 'search' }, true],
    ['TraceQL', { queryType: 'traceql', expr: '{}' }, true],
    ['no TraceQL', { queryType: 'traceql', expr: ' ' }, false],
  ])('are asked when they are complete: %s', (_, query, asked) => {
    expect(new DataSource(settings).filterQuery({ refId: 'A', ...query })).toBe(asked);
  });

  it('tell whether they have variables', () => {
    const ds = new DataSource(settings);
    expect(ds.targetContainsTemplate({ refId: 'A', expr: 'up{a="$service"}' })).toBe(true);
    expect(ds.targetContainsTemplate({ refId: 'A', expr: 'up', traceId: '$id' })).toBe(true);
    expect(ds.targetContainsTemplate({ refId: 'A', expr: 'rate(up[$__rate_interval])' })).toBe(false);
  });

  it('are opened in Explore with their values', () => {
    const [q] = new DataSource(settings).interpolateVariablesInQueries(
      [{ refId: 'A', queryType: 'search', service: '$service' }],
      {}
    );
    expect(q).toMatchObject({ service: 'ca"rt', datasource: { uid: 'braid-uid' } });
  });
});

describe('values of variables inside matchers', () => {
  it.each([
    ['one', 'a.b', {}, 'a.b'],
    ['one with quotes', 'a"\\', {}, 'a\\"\\\\'],
    ['one of several', 'a.b', { multi: true }, 'a\\\\.b'],
    ['several', ['a.b', 'c|d'], { multi: true }, '(a\\\\.b|c\\\\|d)'],
    ['a list of one', ['a+'], {}, 'a\\\\+'],
  ])('%s', (_, value, variable, want) => {
    expect(inMatcher(value, variable)).toBe(want);
  });
});

describe('variables', () => {
  it.each([
    ['label_values(service_name)', 'label-values', { name: 'service_name' }],
    [
      'label_values(up{a=~"x,y", b="$service"}, pod)',
      'label-values',
      { name: 'pod', 'match[]': 'up{a=~"x,y", b="ca\\"rt"}' },
    ],
    ['label_names()', 'labels', {}],
    ['log_label_values({a="b"}, pod)', 'log-label-values', { name: 'pod', query: '{a="b"}' }],
    ['log_label_names()', 'log-labels', {}],
    ['services()', 'trace-tag-values', { name: 'service.name' }],
    ['trace_tag_values(http.route)', 'trace-tag-values', { name: 'http.route' }],
  ])('%s', async (query, path, params) => {
    server(() => ['b', 'a']);
    const ds = new DataSource(settings);
    expect(await ds.metricFindQuery(query)).toEqual([{ text: 'b' }, { text: 'a' }]);
    expect(calls[0].url).toContain(`/resources/${path}`);
    expect(calls[0].params).toEqual(params);
  });

  it('metrics(regular expression) keeps the names that match', async () => {
    server(() => ['http_requests_total', 'up']);
    expect(await new DataSource(settings).metricFindQuery('metrics(^http)')).toEqual([{ text: 'http_requests_total' }]);
  });

  it('ask about the time range of the dashboard', async () => {
    server(() => []);
    const { range } = request([]);
    await new DataSource(settings).metricFindQuery('label_values(a)', { range });
    expect(calls[0].params).toEqual({ name: 'a', start: '2026-01-01T00:00:00.000Z', end: '2026-01-01T01:00:00.000Z' });
  });

  it.each(['', 'up', 'nonsense(a)', 'label_values()'])('refuses %p', async (query) => {
    await expect(new DataSource(settings).metricFindQuery(query)).rejects.toThrow();
    expect(calls).toHaveLength(0);
  });
});

describe('log lines', () => {
  it('have their labels in groups', () => {
    const ds = new DataSource(settings);
    expect(hasLogsLabelTypesSupport(ds)).toBe(true);
    const lines = {
      length: 1,
      fields: [{ name: 'labelTypes', values: [{ pod: 'I', user: 'S' }], type: 'other', config: {} }],
    } as never;
    expect(ds.getLabelDisplayTypeFromFrame('pod', lines, 0)).toBe('Stream labels');
    expect(ds.getLabelDisplayTypeFromFrame('user', lines, 0)).toBe('Attributes');
    expect(ds.getLabelDisplayTypeFromFrame('nobody', lines, 0)).toBeNull();
    expect(ds.getLabelDisplayTypeFromFrame('pod', undefined, 0)).toBeNull();
  });
});

it('takes the interval of the settings as the smallest step', () => {
  expect(new DataSource(settings).interval).toBe('30s');
});
