/**
 * Paths in a guest as a terminal can show them, and back: control characters, backslashes and what is no UTF-8 as `\n`, `\t`, `\\` and `\xHH`; and
 * as the routes take them.
 */
import { PandoError } from '@pando/common';

const SIGNS: Readonly<Record<string, string>> = { '\n': '\\n', '\t': '\\t', '\\': '\\\\' };

/** Of the commands that take such paths. */
export interface PlaceOptions {
  readonly fileSystem?: string;
  readonly escaped?: boolean;
}

/** `base64` where the bytes are no UTF-8, and `text` says less than they do. */
export function escaped(text: string, base64?: string): string {
  if (base64 === undefined) return escapeText(text);
  const bytes = Buffer.from(base64, 'base64');
  let shown = '';
  const decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });
  for (let at = 0; at < bytes.length;) {
    const length = lengthOfCharacter(bytes[at]!);
    try {
      shown += escapeText(decoder.decode(bytes.subarray(at, at + length)));
      at += length;
    } catch {
      shown += hex(bytes[at]!);
      at++;
    }
  }
  return shown;
}

/** The bytes that such a text stands for. @throws `request-invalid` */
export function unescaped(text: string): Buffer {
  const pieces = text.split(/(\\(?:x[0-9a-f]{2}|[nt\\]))/i);
  return Buffer.concat(
    pieces.map((piece, i) => {
      if (i % 2 === 1) return bytesOf(piece);
      if (piece.includes('\\'))
        throw new PandoError('request-invalid', 'in an escaped path a backslash is \\\\, \\n, \\t or \\xHH');
      return Buffer.from(piece);
    }),
  );
}

export function pathBytes(path: string, { escaped: isEscaped }: PlaceOptions): Buffer {
  return isEscaped === true ? unescaped(path) : Buffer.from(path);
}

/** As the routes take it. */
export interface PlaceQuery {
  readonly path?: string;
  readonly pathBase64?: string;
  readonly fileSystem?: string | undefined;
}

export function placeOf(path: string | Buffer, options: PlaceOptions): PlaceQuery {
  const bytes = typeof path === 'string' ? pathBytes(path, options) : path;
  if (bytes[0] !== 0x2f) throw new PandoError('request-invalid', 'a path in the guest begins with /');
  const text = bytes.toString('utf8');
  return {
    fileSystem: options.fileSystem,
    ...(Buffer.from(text).equals(bytes) ? { path: text } : { pathBase64: bytes.toString('base64') }),
  };
}

function escapeText(text: string): string {
  return text.replace(
    /[\\\p{Cc}\u2028\u2029\u202a-\u202e\u2066-\u2069]/gu,
    (sign) => SIGNS[sign] ?? [...Buffer.from(sign)].map(hex).join(''),
  );
}

function hex(byte: number): string {
  return `\\x${byte.toString(16).padStart(2, '0')}`;
}

function bytesOf(sign: string): Buffer {
  if (sign[1]!.toLowerCase() === 'x') return Buffer.from(sign.slice(2), 'hex');
  return Buffer.from({ 'n': '\n', 't': '\t', '\\': '\\' }[sign[1]!.toLowerCase()]!);
}

function lengthOfCharacter(first: number): number {
  if (first < 0x80) return 1;
  return first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;
}
