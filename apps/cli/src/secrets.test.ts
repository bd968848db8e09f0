import { expect, test } from 'vitest';
import { withoutSecrets } from './secrets.ts';

test.each([
  ['{"secret": "abc\\"def"}', '{"secret": "(hidden)"}'],
  ['{"adminToken":"x"}', '{"adminToken":"(hidden)"}'],
  [`token pando_${'a'.repeat(10)}_${'z2'.repeat(26)}.`, 'token (hidden).'],
  ['pando_nbd_requests_in_flight 5', 'pando_nbd_requests_in_flight 5'],
  ['whsec_AbC+/12= ', '(hidden) '],
  ['Authorization: Bearer abcdefgh12345', 'Authorization: Bearer (hidden)'],
  ['"url":"https://example.net/hook/T0KEN?key=1"', '"url":"https://example.net/(hidden)"'],
  ['"url":"https://user:pass@example.net"', '"url":"https://example.net/(hidden)"'],
  ['nbd://user@host/x', 'nbd://(hidden)@host/x'],
  ['-----BEGIN PRIVATE KEY-----\nabc\n-----END PRIVATE KEY-----\nrest', '(hidden)\nrest'],
  ['-----BEGIN EC PRIVATE KEY-----\ncut off', '(hidden)'],
  ['{"name":"web-1","text":"a job failed"}', '{"name":"web-1","text":"a job failed"}'],
])('%s', (text, found) => {
  expect(withoutSecrets(text)).toBe(found);
});
