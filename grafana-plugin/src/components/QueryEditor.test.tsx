import React, { useState } from 'react';
import { fireEvent, render, screen, waitFor } from '@testing-library/react';
import userEvent from '@testing-library/user-event';
import { DataSource } from '../datasource';
import { BraidQuery } from '../types';
import { QueryEditor } from './QueryEditor';

function show(start: Partial<BraidQuery>, names: string[] = []) {
  let now: BraidQuery = { refId: 'A', ...start };
  const run = jest.fn();
  const ask = jest.fn(async () => names);
  const datasource = { names: ask } as unknown as DataSource;
  const Page = () => {
    const [query, setQuery] = useState(now);
    now = query;
    return <QueryEditor datasource={datasource} query={query} onChange={setQuery} onRunQuery={run} />;
  };
  render(<Page />);
  return { now: () => now, run, names: ask };
}

it('begins with PromQL', async () => {
  const { now, run } = show({});
  await userEvent.type(screen.getByLabelText('PromQL'), 'up{{}');
  expect(now()).toEqual({ refId: 'A', expr: 'up{}' });
  expect(run).not.toHaveBeenCalled();
});

it('runs on Shift+Enter', async () => {
  const { now, run } = show({ expr: 'up' });
  await userEvent.type(screen.getByLabelText('PromQL'), '{Shift>}{Enter}{/Shift}');
  expect(run).toHaveBeenCalledTimes(1);
  expect(now().expr).toBe('up');
});

it('runs what was changed when the field is left, once', async () => {
  const { run } = show({ expr: 'u' });
  const field = screen.getByLabelText('PromQL');
  fireEvent.blur(field);
  expect(run).not.toHaveBeenCalled();
  await userEvent.type(field, 'p');
  fireEvent.blur(field);
  fireEvent.blur(field);
  expect(run).toHaveBeenCalledTimes(1);
});

it.each([
  ['Logs', 'LogQL', 'logs'],
  ['Search', 'Tags', 'search'],
  ['Trace', 'Trace ID', 'trace'],
  ['Resource', 'Name', 'resource'],
])('switches to %s with one field for its language', async (tab, field, type) => {
  const { now, run } = show({ queryType: 'metrics', expr: 'up' });
  await userEvent.click(screen.getByRole('radio', { name: tab }));
  expect(now().queryType).toBe(type);
  expect(run).toHaveBeenCalled();
  expect(screen.getAllByRole('textbox', { name: field })).toHaveLength(1);
  expect(screen.queryByLabelText('PromQL')).toBeNull();
});

it('shows a trace as spans, log lines or metrics', async () => {
  const { now } = show({ queryType: 'traceLogs', traceId: 'abc' });
  expect(screen.getByRole('radio', { name: 'Trace' })).toBeChecked();
  await userEvent.type(document.querySelector('#braid-spanId')!, 'def');
  expect(now()).toMatchObject({ queryType: 'traceLogs', traceId: 'abc', spanId: 'def' });
  // "Metrics" is a tab and a view: the view is the second.
  await userEvent.click(screen.getAllByRole('radio', { name: 'Metrics' })[1]);
  expect(now().queryType).toBe('traceMetrics');
  expect(document.querySelector('#braid-spanId')).toBeNull();
});

it('asks for the services that sent spans, and takes what is typed', async () => {
  const { now, run, names } = show({ queryType: 'search' }, ['cart', 'frontend']);
  await userEvent.click(screen.getByRole('combobox'));
  await waitFor(() => expect(names).toHaveBeenCalledWith('trace-tag-values', { name: 'service.name' }));
  await userEvent.type(screen.getByRole('combobox'), 'frontend');
  await waitFor(() => expect(screen.getByRole('listbox')).toBeInTheDocument());
  await userEvent.keyboard('{ArrowDown}{Enter}');
  await waitFor(() => expect(now().service).toBe('frontend'));
  expect(run).toHaveBeenCalledTimes(1);
});

it('sets the options of metrics', async () => {
  const { now, run } = show({ queryType: 'metrics', expr: 'up' });
  await userEvent.click(document.querySelector('#braid-exemplars')!);
  expect(now().exemplars).toBe(true);
  await userEvent.type(document.querySelector('#braid-legendFormat')!, 'x');
  expect(now().legendFormat).toBe('x');
  await userEvent.click(screen.getByRole('radio', { name: 'Instant' }));
  expect(now().instant).toBe(true);
  expect(document.querySelector('#braid-exemplars')).toBeNull();
  await userEvent.click(screen.getByRole('radio', { name: 'Table' }));
  expect(now().format).toBe('table');
  expect(run).toHaveBeenCalled();
});

it('asks TraceQL for traces or series', async () => {
  const { now, run } = show({ queryType: 'traceql' });
  await userEvent.type(screen.getByLabelText('TraceQL', { selector: 'textarea' }), '{{ } | rate()');
  expect(now()).toMatchObject({ queryType: 'traceql', expr: '{ } | rate()' });
  await userEvent.type(document.querySelector('#braid-limit')!, '7');
  expect(now().limit).toBe(7);
  expect(document.querySelector('#braid-minStep')).toBeNull();
  await userEvent.click(screen.getByRole('radio', { name: 'Series' }));
  expect(now().format).toBe('timeseries');
  expect(run).toHaveBeenCalled();
  expect(document.querySelector('#braid-limit')).toBeNull();
  await userEvent.type(document.querySelector('#braid-minStep')!, '5m');
  await userEvent.click(document.querySelector('#braid-exemplars')!);
  expect(now()).toMatchObject({ minStep: '5m', exemplars: true });
});

it('sets and drops limits', async () => {
  const { now } = show({ queryType: 'logs', expr: '{a="b"}' });
  const limit = document.querySelector('#braid-maxLines')!;
  await userEvent.type(limit, '50');
  expect(now().maxLines).toBe(50);
  await userEvent.clear(limit);
  expect(now().maxLines).toBeUndefined();
  await userEvent.click(screen.getByRole('radio', { name: 'Oldest first' }));
  expect(now().direction).toBe('forward');
});
