export { refuseNewerLog } from './refuse-newer.ts';
export * from './types.ts';
export { verifyLog, type DamagedPlace, type LogToVerify } from './verify.ts';
export { FILE_BYTES_DEFAULT, openWriteLog, type WriteLogOptions } from './write-log.ts';
