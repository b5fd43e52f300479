import React, { ChangeEvent, ReactNode } from 'react';
import { QueryEditorProps } from '@grafana/data';
import { Combobox, InlineField, InlineSwitch, Input, RadioButtonGroup, Stack } from '@grafana/ui';
import { DataSource } from '../datasource';
import { BraidOptions, BraidQuery, QueryType } from '../types';
import { CodeField } from './CodeField';

type Props = QueryEditorProps<DataSource, BraidQuery, BraidOptions>;

/** The tabs. A trace can be shown in three ways, each of which is a query type. */
const TABS = [
  { label: 'Metrics', value: 'metrics' as const, description: 'PromQL' },
  { label: 'Logs', value: 'logs' as const, description: 'LogQL' },
  { label: 'Search', value: 'search' as const, description: 'Find traces by tags and duration' },
  { label: 'TraceQL', value: 'traceql' as const, description: 'Find traces, or compute series from spans' },
  {
    label: 'Trace',
    value: 'trace' as const,
    description: 'A trace by its ID, its log lines, and the metrics around it',
  },
  { label: 'Resource', value: 'resource' as const, description: 'Everything that a pod, a service or a host sent' },
];

const VIEWS = [
  { label: 'Spans', value: 'trace' as const },
  { label: 'Log lines', value: 'traceLogs' as const },
  { label: 'Metrics', value: 'traceMetrics' as const },
];

const RESULTS = [
  { label: 'Traces', value: 'table' as const },
  { label: 'Series', value: 'timeseries' as const },
];

const KINDS = ['', 'pod', 'container', 'service', 'instance', 'host'].map((value) => ({
  label: value || 'any',
  value,
}));

export function QueryEditor({ query, onChange, onRunQuery, datasource }: Props) {
  const type: QueryType = query.queryType ?? 'metrics';
  const set = (change: Partial<BraidQuery>) => onChange({ ...query, ...change });
  const setAndRun = (change: Partial<BraidQuery>) => {
    set(change);
    onRunQuery();
  };

  const code = (field: 'expr' | 'traceId' | 'tags' | 'resource', label: string, placeholder: string) => (
    <CodeField
      key={type}
      id={`braid-${field}`}
      label={label}
      placeholder={placeholder}
      value={query[field]}
      onChange={(value) => set({ [field]: value })}
      onRun={onRunQuery}
    />
  );
  const text = (
    field: 'legendFormat' | 'minStep' | 'spanId' | 'minDuration' | 'maxDuration',
    label: string,
    placeholder: string,
    width: number,
    tooltip?: string
  ) => (
    <InlineField label={label} tooltip={tooltip}>
      <Input
        id={`braid-${field}`}
        width={width}
        placeholder={placeholder}
        value={query[field] ?? ''}
        onChange={(e: ChangeEvent<HTMLInputElement>) => set({ [field]: e.target.value || undefined })}
        onBlur={onRunQuery}
      />
    </InlineField>
  );
  const count = (field: 'maxLines' | 'limit', label: string, placeholder: string) => (
    <InlineField label={label}>
      <Input
        id={`braid-${field}`}
        type="number"
        min={1}
        width={12}
        placeholder={placeholder}
        value={query[field] ?? ''}
        onChange={(e: ChangeEvent<HTMLInputElement>) =>
          set({ [field]: e.target.value === '' ? undefined : Number(e.target.value) })
        }
        onBlur={onRunQuery}
      />
    </InlineField>
  );
  const row = (children: ReactNode) => (
    <Stack gap={0.5} wrap="wrap">
      {children}
    </Stack>
  );

  const minStep = text('minStep', 'Min step', 'auto', 10, 'The smallest distance of two points, such as 30s');
  const legend = text(
    'legendFormat',
    'Legend',
    '{{service_name}}',
    28,
    'The name of a series; {{label}} is the value of a label'
  );
  const exemplars = (
    <InlineField label="Exemplars" tooltip="Points of single requests, each with a link to its trace">
      <InlineSwitch
        id="braid-exemplars"
        value={Boolean(query.exemplars)}
        onChange={(e) => setAndRun({ exemplars: e.currentTarget.checked })}
      />
    </InlineField>
  );

  return (
    <Stack direction="column" gap={1}>
      <Stack>
        <RadioButtonGroup
          aria-label="Query type"
          size="sm"
          options={TABS}
          value={type === 'traceLogs' || type === 'traceMetrics' ? 'trace' : type}
          onChange={(queryType) => setAndRun({ queryType })}
        />
      </Stack>
      {type === 'metrics' && (
        <>
          {code('expr', 'PromQL', 'sum by (service_name) (rate(http_requests_total[$__rate_interval]))')}
          {row(
            <>
              <InlineField label="Type">
                <RadioButtonGroup
                  options={[
                    { label: 'Range', value: false },
                    { label: 'Instant', value: true },
                  ]}
                  value={Boolean(query.instant)}
                  onChange={(instant) => setAndRun({ instant })}
                />
              </InlineField>
              {query.instant ? (
                <InlineField label="Format">
                  <RadioButtonGroup
                    options={[
                      { label: 'Numbers', value: 'timeseries' as const },
                      { label: 'Table', value: 'table' as const },
                    ]}
                    value={query.format ?? 'timeseries'}
                    onChange={(format) => setAndRun({ format })}
                  />
                </InlineField>
              ) : (
                <>
                  {minStep}
                  {exemplars}
                </>
              )}
              {legend}
            </>
          )}
        </>
      )}
      {type === 'logs' && (
        <>
          {code('expr', 'LogQL', '{service_name="cart"} |= "error"')}
          {row(
            <>
              {count('maxLines', 'Line limit', 'default')}
              <InlineField label="Order">
                <RadioButtonGroup
                  options={[
                    { label: 'Newest first', value: 'backward' as const },
                    { label: 'Oldest first', value: 'forward' as const },
                  ]}
                  value={query.direction ?? 'backward'}
                  onChange={(direction) => setAndRun({ direction })}
                />
              </InlineField>
            </>
          )}
        </>
      )}
      {type === 'search' && (
        <>
          {code('tags', 'Tags', 'status=error http.route="/cart/{id}"')}
          {row(
            <>
              <InlineField label="Service">
                <Combobox
                  id="braid-service"
                  width={28}
                  isClearable
                  createCustomValue
                  placeholder="any"
                  value={query.service ?? null}
                  options={async (typed: string) =>
                    (await datasource.names('trace-tag-values', { name: 'service.name' }))
                      .filter((name) => name.includes(typed))
                      .map((value) => ({ value, label: value }))
                  }
                  onChange={(option) => setAndRun({ service: option?.value })}
                />
              </InlineField>
              {text('minDuration', 'Min duration', '100ms', 12)}
              {text('maxDuration', 'Max duration', '10s', 12)}
              {count('limit', 'Limit', '20')}
            </>
          )}
        </>
      )}
      {type === 'traceql' && (
        <>
          {code('expr', 'TraceQL', '{ resource.service.name = "cart" && status = error }')}
          {row(
            <>
              <InlineField label="Result" tooltip="Series are for queries that compute numbers, such as { } | rate()">
                <RadioButtonGroup
                  options={RESULTS}
                  value={query.format ?? 'table'}
                  onChange={(format) => setAndRun({ format })}
                />
              </InlineField>
              {query.format === 'timeseries' ? (
                <>
                  {!query.instant && minStep}
                  {!query.instant && exemplars}
                  {legend}
                </>
              ) : (
                count('limit', 'Limit', '20')
              )}
            </>
          )}
        </>
      )}
      {(type === 'trace' || type === 'traceLogs' || type === 'traceMetrics') && (
        <>
          {code('traceId', 'Trace ID', '5b8efff798038103d269b633813fc60c')}
          {row(
            <>
              <InlineField label="Show">
                <RadioButtonGroup options={VIEWS} value={type} onChange={(queryType) => setAndRun({ queryType })} />
              </InlineField>
              {type === 'traceLogs' && text('spanId', 'Span', 'all', 22, 'Only the lines of this span')}
            </>
          )}
        </>
      )}
      {type === 'resource' && (
        <>
          {code('resource', 'Name', 'shop/cart-0')}
          {row(
            <InlineField label="Kind">
              <RadioButtonGroup
                options={KINDS}
                value={query.kind ?? ''}
                onChange={(kind) => setAndRun({ kind: kind || undefined })}
              />
            </InlineField>
          )}
        </>
      )}
    </Stack>
  );
}
