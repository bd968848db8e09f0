/** Every named schema, in an order in which each comes after what it refers to. */
import { answerSchemas } from './answers.ts';
import { ActivityBucket, ActivityPage, Tripwire, TripwireTrip } from './activity.ts';
import { AuditEntry, AuditPage, CreatedToken, NewToken, Scope, Token, TokenPage, Whoami } from './access.ts';
import { Problem } from './common.ts';
import { fileSchemas } from './files.ts';
import { Event, EventPage, NewWebhook, Webhook, WebhookList, WebhookTest } from './events.ts';
import {
  Backup,
  BackupChange,
  BackupImportResult,
  BackupPage,
  BackupPolicy,
  Disk,
  DiskMap,
  Extent,
  ImportResult,
  Vm,
  VmPage,
  Vms,
} from './fleet.ts';
import { policySchemas } from './policies.ts';
import { OwnerSpace, OwnerSpacePage, SpaceHistory, SpaceRatios, SpaceReport, SpaceSample } from './report.ts';
import {
  DamagedDisk,
  GcReport,
  GcRequest,
  Health,
  Job,
  JobError,
  JobPage,
  LastVerification,
  LastVerifications,
  Progress,
  Ready,
  ReadyCheck,
  RepairReport,
  UnfinishedVerification,
  VerifyReport,
  VerifyRequest,
} from './work.ts';

export * from './answers.ts';
export * from './activity.ts';
export * from './access.ts';
export * from './common.ts';
export * from './events.ts';
export * from './files.ts';
export * from './fleet.ts';
export * from './policies.ts';
export * from './report.ts';
export * from './work.ts';

export const namedSchemas = [
  Problem,
  Scope,
  NewToken,
  Token,
  CreatedToken,
  TokenPage,
  Whoami,
  AuditEntry,
  AuditPage,
  Disk,
  Vm,
  BackupPolicy,
  Backup,
  BackupChange,
  VmPage,
  Vms,
  BackupPage,
  ImportResult,
  BackupImportResult,
  Extent,
  DiskMap,
  ...fileSchemas,
  ...policySchemas,
  ActivityBucket,
  ActivityPage,
  TripwireTrip,
  Tripwire,
  SpaceRatios,
  SpaceReport,
  OwnerSpace,
  OwnerSpacePage,
  ...answerSchemas,
  SpaceSample,
  SpaceHistory,
  GcReport,
  GcRequest,
  VerifyRequest,
  DamagedDisk,
  VerifyReport,
  RepairReport,
  LastVerification,
  UnfinishedVerification,
  LastVerifications,
  Progress,
  JobError,
  Job,
  JobPage,
  Health,
  ReadyCheck,
  Ready,
  Event,
  EventPage,
  Webhook,
  WebhookList,
  NewWebhook,
  WebhookTest,
];
