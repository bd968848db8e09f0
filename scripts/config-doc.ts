/** Writes docs/configuration.md and packaging/pando.toml from the table of options: `node scripts/config-doc.ts`. A test holds them together. */
import { writeFileSync } from 'node:fs';
import { pathToFileURL } from 'node:url';
import { environmentName } from '@pando/server/config';
import { SERVE_FLAGS, type Flag } from '@pando/server/options';

export const CONFIG_PAGE = new URL('../docs/configuration.md', import.meta.url);
export const CONFIG_SAMPLE = new URL('../packaging/pando.toml', import.meta.url);

const INTRODUCTION = `# Configuration of the server

Written by \`node scripts/config-doc.ts\` from \`apps/server/src/options.ts\`; edit that file.

An option of \`pando serve\` (and \`npm start\`) can be said in three places; the first of them that says it wins:

1. a flag, \`--gc-every 30\`;
2. the environment, \`PANDO_GC_EVERY=30\`: the name of the flag in capitals. Several values are separated by commas, switches are \`true\` or \`false\`, and an
   empty value counts as none;
3. a configuration file, \`gc-every = 30\`: TOML 1.0, with the names of the flags as keys and no tables. Switches are \`true\` or \`false\`, several values a list.
   A key that is no option is an error, as is a key twice.

The file is the one of \`--config\` or \`PANDO_CONFIG\`; or \`/etc/pando/pando.toml\` where there is one and no data directory is named by \`--data\` or
\`PANDO_DATA\`. Relative paths in it are relative to where the server was started. It names files with secrets and holds none itself; \`packaging/pando.toml\` is one to begin with.

    pando config check [FILE]     every mistake with file, line and column; exit status 1 if there is one
    pando config show [FILE]      every value in force, and where it comes from

Both take \`--json\`, start nothing and ask no server. The server reads the file once, when it starts; what SIGHUP makes it read again are the files
that options name: certificates, keys and access rules.
`;

function row({ name, value, fallback, only, help, multiple }: Flag): string {
  const flag = `\`--${name}${value === undefined ? '' : ` ${value}`}\`${multiple === true ? ', repeated' : ''}`;
  const environment = only === 'flag' ? '' : `\`${environmentName(name)}\``;
  return `| ${flag} | ${environment} | ${only === undefined ? `\`${name}\`` : ''} | ${fallback ?? ''} | ${help.replaceAll('|', '\\|')} |`;
}

/** The page as it has to be. */
export function configPage(): string {
  const head = ['| flag | environment | file | default | |', '| --- | --- | --- | --- | --- |'];
  return [INTRODUCTION, ...head, ...SERVE_FLAGS.map(row), ''].join('\n');
}

/** A file with every option in it, commented out; where the packages differ from the defaults, their value. */
const PACKAGED: Readonly<Record<string, string>> = {
  'data': '"/var/lib/pando"',
  'http-socket': '"/run/pando/http.sock"',
  'nbd-socket': '"/run/pando/nbd.sock"',
};

export function configSample(): string {
  const parts = SERVE_FLAGS.filter(({ only }) => only === undefined).map(
    ({ name, value, fallback, multiple, help }) => {
      const packaged = PACKAGED[name];
      const written = packaged ?? sampleValue(value, fallback, multiple === true);
      return `# ${help}\n${packaged === undefined ? '# ' : ''}${name} = ${written}\n`;
    },
  );
  return [
    '# /etc/pando/pando.toml: see docs/configuration.md; check with `pando config check`.\n',
    ...parts,
  ].join('\n');
}

function sampleValue(value: string | undefined, fallback: string | undefined, isList: boolean): string {
  if (value === undefined) return 'true';
  const text = fallback ?? value;
  const written = /^\d+$/.test(text) ? text : JSON.stringify(text);
  return isList ? `[${written}]` : written;
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) {
  writeFileSync(CONFIG_PAGE, configPage());
  writeFileSync(CONFIG_SAMPLE, configSample());
}
