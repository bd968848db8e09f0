/** Helpers for tests of whatever serves or speaks NBD. */
export { DeviceExports } from './device-exports.ts';
export { RawClient, contextRequest, infoRequest, rawRequest } from './raw-client.ts';
