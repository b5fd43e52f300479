import React, { KeyboardEvent, useRef } from 'react';
import { css } from '@emotion/css';
import { GrafanaTheme2 } from '@grafana/data';
import { TextArea, useStyles2 } from '@grafana/ui';

interface Props {
  id: string;
  label: string;
  placeholder: string;
  value?: string;
  onChange: (value: string) => void;
  onRun: () => void;
}

/** The text of a query. Shift+Enter runs it, and so does leaving it when it has changed. */
export function CodeField({ id, label, placeholder, value = '', onChange, onRun }: Props) {
  const styles = useStyles2(getStyles);
  const ran = useRef(value);
  const run = () => {
    ran.current = value;
    onRun();
  };
  const lines = value.split('\n').length;
  return (
    <TextArea
      id={id}
      aria-label={label}
      className={styles.code}
      placeholder={placeholder}
      rows={Math.min(Math.max(lines, 2), 12)}
      spellCheck={false}
      value={value}
      onChange={(e) => onChange(e.currentTarget.value)}
      onKeyDown={(e: KeyboardEvent) => {
        if (e.key === 'Enter' && (e.shiftKey || e.ctrlKey || e.metaKey)) {
          e.preventDefault();
          run();
        }
      }}
      onBlur={() => {
        if (value !== ran.current) {
          run();
        }
      }}
    />
  );
}

const getStyles = (theme: GrafanaTheme2) => ({
  code: css({
    fontFamily: theme.typography.fontFamilyMonospace,
    fontSize: theme.typography.code.fontSize,
    resize: 'vertical',
  }),
});
