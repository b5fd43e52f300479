// What Grafana's server writes into its page. It must be there before the first @grafana package is loaded.
const w = window as unknown as Record<string, unknown>;
w.grafanaBootData = {
  settings: {
    appSubUrl: '',
    buildInfo: { version: '13.1.1', env: 'test' },
    featureToggles: {},
    datasources: {},
    panels: {},
    apps: {},
  },
  user: { orgId: 1, login: 'admin', orgRole: 'Admin', theme: 'dark', timezone: 'utc', locale: 'en-US' },
  navTree: [],
};
w.global = window;
w.process ??= { env: { NODE_ENV: 'production' } };

export {};
