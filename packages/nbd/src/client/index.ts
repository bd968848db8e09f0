export { NbdClient } from './client.ts';
export type { ClientTls } from './client-tls.ts';
export { BASE_ALLOCATION } from './connect.ts';
export type { NbdClientOptions } from './connect.ts';
export { shareReceiveBuffer } from '../receive-buffer.ts';
