export { EVENT_KINDS, type EventKind, type OnEvent, type ServiceEvent, type Severity } from './types.ts';
