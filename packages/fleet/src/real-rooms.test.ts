/** The same tests over the real chunk store and the real volumes. */
import { useRealRooms } from './testing/fixture.ts';

useRealRooms();
await import('./vms.test.ts');
await import('./backups.test.ts');
await import('./restore.test.ts');
await import('./attachments.test.ts');
await import('./contexts.test.ts');
