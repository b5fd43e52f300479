import React, { FormEvent, useState } from 'react';
import { DataSourcePluginOptionsEditorProps } from '@grafana/data';
import { Collapse, InlineField, InlineSwitch, Input, SecretInput, SecretTextArea } from '@grafana/ui';
import { BraidOptions, BraidSecrets } from '../types';

type Props = DataSourcePluginOptionsEditorProps<BraidOptions, BraidSecrets>;
type Text = FormEvent<HTMLInputElement | HTMLTextAreaElement>;

const LABEL = 22;
const WIDTH = 52;

/** The settings. A URL is enough; the rest is for servers behind a login, for tenants, and for tuning. */
export function ConfigEditor({ options, onOptionsChange }: Props) {
  const { jsonData, secureJsonData, secureJsonFields } = options;
  const [more, setMore] = useState(false);

  const setJson = (change: Partial<BraidOptions>) =>
    onOptionsChange({ ...options, jsonData: { ...jsonData, ...change } });
  const setSecret = (change: BraidSecrets) =>
    onOptionsChange({ ...options, secureJsonData: { ...secureJsonData, ...change } });
  const reset = (name: keyof BraidSecrets) =>
    onOptionsChange({
      ...options,
      secureJsonFields: { ...secureJsonFields, [name]: false },
      secureJsonData: { ...secureJsonData, [name]: '' },
    });
  const number = (e: Text) => (e.currentTarget.value === '' ? undefined : Number(e.currentTarget.value));

  return (
    <>
      <InlineField
        label="URL"
        labelWidth={LABEL}
        required
        tooltip="Where Braid answers queries, seen from Grafana's server"
      >
        <Input
          id="braid-url"
          width={WIDTH}
          placeholder="http://localhost:9090"
          value={options.url ?? ''}
          onChange={(e: Text) => onOptionsChange({ ...options, url: e.currentTarget.value })}
        />
      </InlineField>
      <InlineField
        label="Token"
        labelWidth={LABEL}
        tooltip="Sent as a bearer token, for a Braid that wants one. It is stored encrypted and never sent to the browser."
      >
        <SecretInput
          id="braid-token"
          width={WIDTH}
          placeholder="none"
          isConfigured={Boolean(secureJsonFields?.token)}
          value={secureJsonData?.token ?? ''}
          onChange={(e: Text) => setSecret({ token: e.currentTarget.value })}
          onReset={() => reset('token')}
        />
      </InlineField>
      <InlineField
        label="Tenant"
        labelWidth={LABEL}
        tooltip="Whose data is shown. Several are joined by | where Braid allows it."
      >
        <Input
          id="braid-tenant"
          width={WIDTH}
          placeholder="default"
          value={jsonData.tenant ?? ''}
          onChange={(e: Text) => setJson({ tenant: e.currentTarget.value || undefined })}
        />
      </InlineField>
      <Collapse label="More settings" isOpen={more} onToggle={() => setMore(!more)}>
        <InlineField
          label="Metric interval"
          labelWidth={LABEL}
          tooltip="How often samples come. $__rate_interval is at least four times as long, and no panel asks for a smaller step."
        >
          <Input
            id="braid-interval"
            width={WIDTH}
            placeholder="60s"
            value={jsonData.timeInterval ?? ''}
            onChange={(e: Text) => setJson({ timeInterval: e.currentTarget.value || undefined })}
          />
        </InlineField>
        <InlineField label="Line limit" labelWidth={LABEL} tooltip="Log lines of a query that names no limit">
          <Input
            id="braid-lines"
            type="number"
            min={1}
            width={WIDTH}
            placeholder="1000"
            value={jsonData.maxLines ?? ''}
            onChange={(e: Text) => setJson({ maxLines: number(e) })}
          />
        </InlineField>
        <InlineField label="Timeout" labelWidth={LABEL} tooltip="Seconds that a query may take">
          <Input
            id="braid-timeout"
            type="number"
            min={1}
            width={WIDTH}
            placeholder="30"
            value={jsonData.timeout ?? ''}
            onChange={(e: Text) => setJson({ timeout: number(e) })}
          />
        </InlineField>
        <InlineField label="Largest answer" labelWidth={LABEL} tooltip="MiB that the answer to one query may have">
          <Input
            id="braid-size"
            type="number"
            min={1}
            width={WIDTH}
            placeholder="64"
            value={jsonData.maxResponseMiB ?? ''}
            onChange={(e: Text) => setJson({ maxResponseMiB: number(e) })}
          />
        </InlineField>
        <InlineField label="Basic authentication" labelWidth={LABEL} tooltip="A user and a password instead of a token">
          <InlineSwitch
            id="braid-basic"
            value={Boolean(options.basicAuth)}
            onChange={(e) => onOptionsChange({ ...options, basicAuth: e.currentTarget.checked })}
          />
        </InlineField>
        {options.basicAuth && (
          <>
            <InlineField label="User" labelWidth={LABEL}>
              <Input
                id="braid-user"
                width={WIDTH}
                value={options.basicAuthUser ?? ''}
                onChange={(e: Text) => onOptionsChange({ ...options, basicAuthUser: e.currentTarget.value })}
              />
            </InlineField>
            <InlineField label="Password" labelWidth={LABEL}>
              <SecretInput
                id="braid-password"
                width={WIDTH}
                isConfigured={Boolean(secureJsonFields?.basicAuthPassword)}
                value={secureJsonData?.basicAuthPassword ?? ''}
                onChange={(e: Text) => setSecret({ basicAuthPassword: e.currentTarget.value })}
                onReset={() => reset('basicAuthPassword')}
              />
            </InlineField>
          </>
        )}
        <InlineField
          label="Own CA certificate"
          labelWidth={LABEL}
          tooltip="For a certificate that the system does not trust"
        >
          <InlineSwitch
            id="braid-ca"
            value={Boolean(jsonData.tlsAuthWithCACert)}
            onChange={(e) => setJson({ tlsAuthWithCACert: e.currentTarget.checked })}
          />
        </InlineField>
        {jsonData.tlsAuthWithCACert && (
          <InlineField label="CA certificate" labelWidth={LABEL}>
            <SecretTextArea
              id="braid-ca-cert"
              cols={50}
              rows={5}
              placeholder="-----BEGIN CERTIFICATE-----"
              isConfigured={Boolean(secureJsonFields?.tlsCACert)}
              onChange={(e: Text) => setSecret({ tlsCACert: e.currentTarget.value })}
              onReset={() => reset('tlsCACert')}
            />
          </InlineField>
        )}
        <InlineField
          label="Skip TLS verification"
          labelWidth={LABEL}
          tooltip="Anybody on the way can then read the token"
        >
          <InlineSwitch
            id="braid-skip"
            value={Boolean(jsonData.tlsSkipVerify)}
            onChange={(e) => setJson({ tlsSkipVerify: e.currentTarget.checked })}
          />
        </InlineField>
      </Collapse>
    </>
  );
}
