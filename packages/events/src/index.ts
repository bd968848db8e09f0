export { EventLog, EVENT_LIMITS, type EventFilter, type EventLimits } from './log.ts';
export {
  EVENT_KINDS,
  SEVERITIES,
  type EventKind,
  type KeptEvent,
  type OnEvent,
  type ServiceEvent,
  type Severity,
} from './types.ts';
export {
  Webhooks,
  WEBHOOK_LIMITS,
  type CreatedWebhook,
  type Send,
  type Webhook,
  type WebhookLimits,
  type WebhookRequest,
  type WebhookTest,
} from './webhooks.ts';
