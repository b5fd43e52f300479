/** What a variable asks for: a resource of the backend with its parameters. */
export interface VariableRequest {
  path: string;
  params: Record<string, string>;
  /** Keeps the values that match. */
  filter?: RegExp;
}

const CALL = /^\s*([a-z_]+)\s*\(([\s\S]*)\)\s*$/;

/**
 * Reads the query of a variable:
 *
 *     label_names()                       label_values(label)         label_values(metric{...}, label)
 *     log_label_names()                   log_label_values(label)     log_label_values({...}, label)
 *     metrics(regular expression)         services()                  trace_tag_values(tag)
 */
export function parseVariable(query: string): VariableRequest {
  const call = CALL.exec(query);
  if (!call) {
    throw new Error(`"${query}" is not a variable query such as label_values(service_name)`);
  }
  const [, name, inside] = call;
  const comma = inside.lastIndexOf(',');
  // The label is the last argument; what is before it may have commas of its own.
  const selector = comma < 0 ? '' : inside.slice(0, comma).trim();
  const last = inside.slice(comma + 1).trim();
  switch (name) {
    case 'label_names':
      return { path: 'labels', params: inside.trim() ? { 'match[]': inside.trim() } : {} };
    case 'label_values':
      return { path: 'label-values', params: { name: need(last, name), ...(selector && { 'match[]': selector }) } };
    case 'log_label_names':
      return { path: 'log-labels', params: {} };
    case 'log_label_values':
      return { path: 'log-label-values', params: { name: need(last, name), ...(selector && { query: selector }) } };
    case 'metrics':
      return { path: 'metrics', params: {}, filter: new RegExp(inside.trim()) };
    case 'services':
      return { path: 'trace-tag-values', params: { name: 'service.name' } };
    case 'trace_tag_values':
      return { path: 'trace-tag-values', params: { name: need(last, name) } };
    default:
      throw new Error(`${name}() is not known to variables`);
  }
}

function need(label: string, fn: string): string {
  if (!label) {
    throw new Error(`${fn}() needs the name of a label`);
  }
  return label;
}
