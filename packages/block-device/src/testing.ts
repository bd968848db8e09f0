/** Helpers for tests of devices and of what is built on them. */
export * from './fault-devices.ts';
export * from './seeded-random.ts';
