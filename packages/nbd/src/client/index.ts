export { NbdClient } from './client.ts';
export type { NbdClientOptions } from './client.ts';
