import {
  CoreApp,
  DataFrame,
  DataQueryRequest,
  DataQueryResponse,
  DataSourceInstanceSettings,
  LegacyMetricFindQueryOptions,
  MetricFindValue,
  ScopedVars,
} from '@grafana/data';
import { DataSourceWithBackend, getTemplateSrv } from '@grafana/runtime';
import { map, Observable } from 'rxjs';
import { BraidOptions, BraidQuery, DEFAULT_QUERY } from './types';
import { parseVariable } from './variables';

export class DataSource extends DataSourceWithBackend<BraidQuery, BraidOptions> {
  /** Annotations are queries like others: any that answers rows with a time. */
  annotations = {};

  constructor(settings: DataSourceInstanceSettings<BraidOptions>) {
    super(settings);
    if (settings.jsonData?.timeInterval) {
      this.interval = settings.jsonData.timeInterval; // no panel asks for steps below it
    }
  }

  getDefaultQuery(_: CoreApp): Partial<BraidQuery> {
    return DEFAULT_QUERY;
  }

  /** A query without what it needs is not asked. That of a data link has its trace ID and nothing else. */
  filterQuery(query: BraidQuery): boolean {
    if (query.hide) {
      return false;
    }
    switch (query.queryType ?? 'metrics') {
      case 'metrics':
      case 'logs':
      case 'traceql':
        return Boolean(query.expr?.trim());
      case 'trace':
      case 'traceLogs':
      case 'traceMetrics':
        return Boolean(query.traceId?.trim());
      case 'resource':
        return Boolean(query.resource?.trim());
      case 'search':
        return true;
    }
  }

  getQueryDisplayText(query: BraidQuery): string {
    return [query.queryType ?? 'metrics', query.expr, query.traceId, query.service, query.tags, query.resource]
      .filter(Boolean)
      .join(' ');
  }

  query(request: DataQueryRequest<BraidQuery>): Observable<DataQueryResponse> {
    return super.query(request).pipe(map((response) => ({ ...response, data: response.data.map(withLimit) })));
  }

  applyTemplateVariables(query: BraidQuery, scopedVars: ScopedVars): BraidQuery {
    const plain = (text?: string) => text && getTemplateSrv().replace(text, scopedVars);
    return {
      ...query,
      expr: query.expr && getTemplateSrv().replace(query.expr, scopedVars, inMatcher),
      legendFormat: plain(query.legendFormat),
      minStep: plain(query.minStep),
      traceId: plain(query.traceId),
      spanId: plain(query.spanId),
      service: plain(query.service),
      tags: plain(query.tags),
      minDuration: plain(query.minDuration),
      maxDuration: plain(query.maxDuration),
      resource: plain(query.resource),
      kind: plain(query.kind),
    };
  }

  interpolateVariablesInQueries(queries: BraidQuery[], scopedVars: ScopedVars): BraidQuery[] {
    return queries.map((query) => ({ ...this.applyTemplateVariables(query, scopedVars), datasource: this.getRef() }));
  }

  targetContainsTemplate(query: BraidQuery): boolean {
    return Object.values(query).some((v) => typeof v === 'string' && getTemplateSrv().containsTemplate(v));
  }

  async metricFindQuery(
    query: string | { query: string },
    options?: LegacyMetricFindQueryOptions
  ): Promise<MetricFindValue[]> {
    const text = typeof query === 'string' ? query : query.query;
    const request = parseVariable(getTemplateSrv().replace(text, options?.scopedVars, inMatcher));
    const params: Record<string, string> = { ...request.params };
    if (options?.range && !request.path.startsWith('trace')) {
      params.start = options.range.from.toISOString();
      params.end = options.range.to.toISOString();
    }
    const values = await this.names(request.path, params);
    return values.filter((v) => !request.filter || request.filter.test(v)).map((value) => ({ text: value }));
  }

  /** A list of names of the backend: metrics, labels, services. */
  async names(path: string, params: Record<string, string> = {}): Promise<string[]> {
    return (await this.getResource<string[]>(path, params)) ?? [];
  }

  /** The groups that the details of a log line show its labels in. */
  getLabelDisplayTypeFromFrame(labelKey: string, frame: DataFrame | undefined, index: number | null): string | null {
    const types = frame?.fields.find((f) => f.name === 'labelTypes');
    if (!types || index === null) {
      return null;
    }
    switch (types.values[index]?.[labelKey]) {
      case 'I':
        return 'Stream labels';
      case 'S':
        return 'Attributes';
      default:
        return null;
    }
  }
}

/** Where Grafana looks for the limit of log lines is not where a backend can write it. */
function withLimit(frame: DataFrame): DataFrame {
  const limit = frame.meta?.custom?.limit;
  return limit === undefined || frame.meta?.preferredVisualisationType !== 'logs'
    ? frame
    : { ...frame, meta: { ...frame.meta, limit } };
}

const special = (s: string) => s.replace(/[\\^$*+?.()|[\]{}]/g, '\\$&');
const quoted = (s: string) => s.replace(/\\/g, '\\\\').replace(/"/g, '\\"');

/**
 * Writes the value of a variable as it stands inside the quotes of a matcher. One that may have several values stands
 * in a regular expression.
 */
export function inMatcher(value: string | string[], variable: { multi?: boolean; includeAll?: boolean } = {}): string {
  if (Array.isArray(value)) {
    return value.length === 1 ? quoted(special(value[0])) : `(${value.map((v) => quoted(special(v))).join('|')})`;
  }
  return variable.multi || variable.includeAll ? quoted(special(value)) : quoted(value);
}
