/**
 * `npm start`, and `node apps/server/src/main.ts`. Compiled code is kept between runs, which halves the processor time of a start: in the
 * user's own cache folder, because whoever could write there would decide what the server runs.
 */
import { enableCompileCache } from 'node:module';
import { homedir } from 'node:os';
import { join } from 'node:path';

enableCompileCache(join(process.env['XDG_CACHE_HOME'] || join(homedir(), '.cache'), 'pando', 'compiled'));
await import('./command.ts');
