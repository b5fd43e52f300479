import React, { useState } from 'react';
import { DataSourceSettings } from '@grafana/data';
import { render, screen } from '@testing-library/react';
import userEvent from '@testing-library/user-event';
import { BraidOptions, BraidSecrets } from '../types';
import { ConfigEditor } from './ConfigEditor';

type Settings = DataSourceSettings<BraidOptions, BraidSecrets>;

function show(start: Partial<Settings>) {
  let now = { url: '', jsonData: {}, secureJsonFields: {}, basicAuth: false, ...start } as Settings;
  const Page = () => {
    const [options, setOptions] = useState(now);
    now = options;
    return <ConfigEditor options={options} onOptionsChange={(o) => setOptions(o as Settings)} />;
  };
  render(<Page />);
  return () => now;
}

it('needs a URL and no more', async () => {
  const now = show({});
  await userEvent.type(screen.getByPlaceholderText('http://localhost:9090'), 'http://braid:9090');
  expect(now().url).toBe('http://braid:9090');
  expect(now().jsonData).toEqual({});
  expect(now().secureJsonData).toBeUndefined();
});

it('keeps the token among the secrets', async () => {
  const now = show({ jsonData: { tenant: 'team-a' } });
  await userEvent.type(document.querySelector('#braid-token')!, 's3cret');
  expect(now().secureJsonData).toEqual({ token: 's3cret' });
  expect(now().jsonData).toEqual({ tenant: 'team-a' });
});

it('forgets a token that is reset, and no other secret', async () => {
  const now = show({ secureJsonFields: { token: true, tlsCACert: true } });
  expect(document.querySelector('#braid-token')).toBeDisabled();
  await userEvent.click(screen.getByRole('button', { name: 'Reset' }));
  expect(now().secureJsonFields).toEqual({ token: false, tlsCACert: true });
  expect(now().secureJsonData).toEqual({ token: '' });
});

it('drops what is emptied', async () => {
  const now = show({ jsonData: { tenant: 'a', maxLines: 5 } });
  await userEvent.clear(document.querySelector('#braid-tenant')!);
  expect(now().jsonData.tenant).toBeUndefined();
  await userEvent.click(screen.getByRole('button', { name: 'More settings' }));
  await userEvent.clear(document.querySelector('#braid-lines')!);
  expect(now().jsonData.maxLines).toBeUndefined();
  await userEvent.type(document.querySelector('#braid-lines')!, '20');
  expect(now().jsonData.maxLines).toBe(20);
});

it('asks for a user and a password when they are wanted', async () => {
  const now = show({});
  await userEvent.click(screen.getByRole('button', { name: 'More settings' }));
  expect(document.querySelector('#braid-user')).toBeNull();
  await userEvent.click(document.querySelector('#braid-basic')!);
  await userEvent.type(document.querySelector('#braid-user')!, 'ann');
  await userEvent.type(document.querySelector('#braid-password')!, 'pw');
  expect(now()).toMatchObject({ basicAuth: true, basicAuthUser: 'ann', secureJsonData: { basicAuthPassword: 'pw' } });
});

it('takes a certificate', async () => {
  const now = show({});
  await userEvent.click(screen.getByRole('button', { name: 'More settings' }));
  await userEvent.click(document.querySelector('#braid-ca')!);
  await userEvent.type(document.querySelector('#braid-ca-cert')!, 'PEM');
  expect(now()).toMatchObject({ jsonData: { tlsAuthWithCACert: true }, secureJsonData: { tlsCACert: 'PEM' } });
});
