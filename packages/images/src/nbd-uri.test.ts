import { describe, expect, it } from 'vitest';
import { looksLikeNbdUri, parseNbdUri } from './nbd-uri.ts';

describe('NBD URIs', () => {
  it.each<[string, object]>([
    [
      'nbd://example.com/disk',
      { address: { host: 'example.com', port: 10809 }, exportName: 'disk', tls: false },
    ],
    ['nbd://example.com:7/', { address: { host: 'example.com', port: 7 }, exportName: '' }],
    ['nbd://example.com', { exportName: '' }],
    ['nbd://example.com//disk', { exportName: '/disk' }],
    ['nbd://example.com/a/../b', { exportName: 'a/../b' }],
    ['nbd://example.com/hello%20world', { exportName: 'hello world' }],
    ['nbd://example.com/web@monday/disk0', { exportName: 'web@monday/disk0' }],
    ['nbd://example.com/%C3%A4+', { exportName: 'ä+' }],
    ['NBD://[::1]:99/x', { address: { host: '::1', port: 99 } }],
    ['nbd+unix:///disk?socket=nbd.sock', { address: { path: 'nbd.sock' }, exportName: 'disk', tls: false }],
    ['nbd+unix:///?socket=/run/a%20b', { address: { path: '/run/a b' }, exportName: '' }],
    ['nbds://alice@host/x?tls-psk-file=/k', { tls: true, user: 'alice', tlsPskFile: '/k' }],
    [
      'nbds+unix:///x?socket=/s&tls-certificates=/pki&tls-hostname=host.example',
      { tls: true, tlsCertificates: '/pki', tlsHostName: 'host.example', address: { path: '/s' } },
    ],
  ])('%s', (text, expected) => {
    expect(looksLikeNbdUri(text)).toBe(true);
    expect(parseNbdUri(text)).toMatchObject(expected);
  });

  it.each<[string, RegExp]>([
    ['nbd:localhost:10809', /no \/\/.*not understood/],
    ['nbd:unix:/tmp/sock', /not understood/],
    ['nbd+vsock://2/x', /vsock is not supported/],
    ['nbd+ssh://host/x', /scheme nbd\+ssh/],
    ['nbd:///x', /no host/],
    ['nbd://host:0/x', /no port 0/],
    ['nbd://host:65536/x', /no port 65536/],
    ['nbd://ho:st:1/x', /is no host/],
    ['nbd://host/x#y', /%23/],
    ['nbd://host/%zz', /wrongly encoded/],
    ['nbd://host/%ff', /wrongly encoded/],
    ['nbd://host/a%00b', /zero byte/],
    ['nbd://host/x?socket=/s', /socket= goes with/],
    ['nbd+unix:///x', /socket=PATH is missing/],
    ['nbd+unix://host/x?socket=/s', /has no host/],
    ['nbd+unix:///x?socket=/s&socket=/t', /twice/],
    ['nbd://host/x?sockt=/s', /"sockt" is not understood/],
    ['nbd://host/x?tls-psk-file=/k', /nbds/],
    ['nbds://host/x?tls-verify-peer=0', /always verified/],
    ['nbds://host/x?tls-psk-file=/k&tls-certificates=/c', /exclude/],
    ['nbds://alice:secret@host/x', /password/],
    [`nbd://host/${'a'.repeat(4097)}`, /too long/],
  ])('%s is refused', (text, problem) => {
    expect(() => parseNbdUri(text)).toThrow(problem);
    expect(() => parseNbdUri(text)).toThrow(expect.objectContaining({ code: 'uri-invalid' }));
  });

  it('takes files for files', () => {
    for (const path of ['disk.raw', './nbd:x', '/srv/nbd', 'nbd', '-'])
      expect(looksLikeNbdUri(path)).toBe(false);
  });
});
