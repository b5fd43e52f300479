import { DataSourceJsonData } from '@grafana/data';
import { DataQuery } from '@grafana/schema';

/** What a query asks for. The backend knows the same names. */
export type QueryType = 'metrics' | 'logs' | 'trace' | 'traceLogs' | 'traceMetrics' | 'search' | 'traceql' | 'resource';

export interface BraidQuery extends DataQuery {
  queryType?: QueryType;
  /** PromQL of metrics, LogQL of logs, TraceQL. */
  expr?: string;
  /** Metrics: the value at the end of the time range instead of a series. */
  instant?: boolean;
  /** Metrics with instant: one table instead of one frame a number. TraceQL: series instead of traces. */
  format?: 'timeseries' | 'table';
  exemplars?: boolean;
  legendFormat?: string;
  minStep?: string;
  maxLines?: number;
  direction?: 'backward' | 'forward';
  traceId?: string;
  spanId?: string;
  service?: string;
  tags?: string;
  minDuration?: string;
  maxDuration?: string;
  limit?: number;
  resource?: string;
  kind?: string;
}

export const DEFAULT_QUERY: Partial<BraidQuery> = { queryType: 'metrics', expr: '' };

/** jsonData of the data source. */
export interface BraidOptions extends DataSourceJsonData {
  tenant?: string;
  timeInterval?: string;
  maxLines?: number;
  maxResponseMiB?: number;
  timeout?: number;
  tlsSkipVerify?: boolean;
  tlsAuthWithCACert?: boolean;
}

/** What is sent to the backend only. */
export interface BraidSecrets {
  token?: string;
  basicAuthPassword?: string;
  tlsCACert?: string;
}
