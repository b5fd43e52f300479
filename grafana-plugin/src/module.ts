import { DataSourcePlugin } from '@grafana/data';
import { ConfigEditor } from './components/ConfigEditor';
import { QueryEditor } from './components/QueryEditor';
import { DataSource } from './datasource';
import { BraidOptions, BraidQuery, BraidSecrets } from './types';

export const plugin = new DataSourcePlugin<DataSource, BraidQuery, BraidOptions, BraidSecrets>(DataSource)
  .setConfigEditor(ConfigEditor)
  .setQueryEditor(QueryEditor);
