/** Helpers for tests of whatever serves or speaks NBD. */
export { AUTHORITY, CLIENT_CERTIFICATE, CLIENT_KEY, SERVER_CERTIFICATE, SERVER_KEY } from './certificates.ts';
export { DeviceExports } from './device-exports.ts';
export { RawClient, contextRequest, infoRequest, rawRequest } from './raw-client.ts';
