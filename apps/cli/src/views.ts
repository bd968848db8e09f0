/** What the server answers, as far as the commands look at it. */

export interface Page<T> {
  readonly items: readonly T[];
  readonly nextCursor?: string;
}

export interface Disk {
  readonly name: string;
  readonly sizeBytes: number;
}

export interface Vm {
  readonly id: string;
  readonly name: string;
  readonly lineage: string;
  readonly createdAt: string;
  readonly disks: readonly Disk[];
  readonly tags: readonly string[];
  readonly attachedClients: number;
}

export interface Backup {
  readonly id: string;
  readonly name: string;
  readonly vmId: string;
  readonly vmName: string;
  readonly lineage: string;
  readonly createdAt: string;
  readonly disks: readonly Disk[];
  readonly tags: readonly string[];
  readonly consistency: 'crash' | 'application';
  readonly note?: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly lockedUntil?: string;
  readonly expiresAt?: string;
  readonly policy?: {
    readonly id: string;
    readonly name: string;
    readonly rule: string;
    readonly dueAt: string;
  };
  readonly unchanged?: boolean;
}

export interface Schedule {
  readonly timeZone: string;
  readonly everyDays?: number;
  readonly weekdays?: readonly string[];
  readonly monthDays?: readonly (number | 'last')[];
  readonly at?: readonly string[];
  readonly everyMinutes?: number;
  readonly from?: string;
  readonly to?: string;
}

export interface Retention {
  readonly keepForMinutes?: number;
  readonly keepLast?: number;
  readonly keepHourly?: number;
  readonly keepDaily?: number;
  readonly keepWeekly?: number;
  readonly keepMonthly?: number;
  readonly keepYearly?: number;
  readonly keepAtLeast?: number;
}

export interface PolicyRun {
  readonly dueAt: string;
  readonly startedAt: string;
  readonly endedAt?: string;
  readonly backups: number;
  readonly failed: number;
  readonly passes: number;
}

export interface Policy {
  readonly id: string;
  readonly name: string;
  readonly note?: string;
  readonly quiesce?: string;
  readonly rules: readonly {
    readonly name: string;
    readonly schedule: Schedule;
    readonly retention: Retention;
    readonly nextRunAt?: string;
    readonly running?: PolicyRun;
    readonly lastRun?: PolicyRun;
  }[];
  readonly tags: readonly string[];
  readonly isSuspended: boolean;
}

export interface AssignedVm {
  readonly id: string;
  readonly name: string;
  readonly tag?: string;
  readonly isSuspended: boolean;
}

export interface PolicyFailure {
  readonly vmName: string;
  readonly rule: string;
  readonly at: string;
  readonly code: string;
  readonly detail: string;
}

export interface HeldBackups {
  readonly backups: number;
  readonly bytes?: number;
}

export interface VmImpact {
  readonly vm: { readonly id: string; readonly name: string };
  readonly created: number;
  readonly expired: number;
  readonly now: HeldBackups;
  readonly then: HeldBackups;
  readonly steady?: HeldBackups;
}

export interface DueRun {
  readonly at: string;
  readonly policy: string;
  readonly rule: string;
  readonly isRunning: boolean;
}

export interface ImportFigures {
  /** Id of the top node, 64 hex digits. */
  readonly root: string;
  readonly sizeBytes: number;
  readonly chunkBytes: number;
  readonly readBytes: number;
  readonly newBytes: number;
  readonly storedBytes: number;
  readonly chunks: number;
  readonly zeroChunks: number;
  readonly knownChunks: number;
  readonly newChunks: number;
}

export interface ImportResult extends ImportFigures {
  readonly vm: Vm;
}

export interface BackupImportResult extends ImportFigures {
  readonly backup: Backup;
  readonly changedBytes: number;
}

export interface GcReport {
  readonly roots: number;
  readonly liveChunks: number;
  readonly liveBytes: number;
  readonly deadChunks: number;
  readonly droppedSegments: number;
  readonly compactedSegments: number;
  readonly damagedSegments: number;
  readonly freedBytes: number;
}

export interface DamagedDisk {
  readonly kind: 'vm' | 'backup';
  readonly name: string;
  readonly disk: string;
  readonly damagedBytes: number;
  readonly ranges: readonly { readonly offset: number; readonly bytes: number }[];
  readonly moreRanges: number;
}

export interface VerifyReport {
  readonly quick: boolean;
  readonly chunks: number;
  readonly bytes: number;
  readonly resumedBytes?: number;
  readonly nodes: number;
  readonly checkedDisks: number;
  readonly missingChunks: number;
  readonly damaged: readonly { readonly file: string; readonly offset: number; readonly problem: string }[];
  readonly moreDamaged: number;
  readonly disks: readonly DamagedDisk[];
  readonly moreDisks: number;
  readonly isComplete: boolean;
}

export interface RepairReport {
  readonly verifiedAt: string;
  readonly readBytes: number;
  readonly lostChunks: number;
  readonly lostNodes: number;
  readonly repairedChunks: number;
  readonly repairedNodes: number;
  readonly repairedDisks: readonly {
    readonly kind: 'vm' | 'backup';
    readonly name: string;
    readonly disk: string;
  }[];
  readonly again: boolean;
  readonly report: VerifyReport;
}

export interface LastVerification {
  readonly updatedAt?: string;
  readonly startedAt: string;
  readonly endedAt: string;
  readonly seconds: number;
  readonly scheduled: boolean;
  readonly report: VerifyReport;
}

export interface UnfinishedVerification {
  readonly startedAt: string;
  readonly keptAt: string;
  readonly doneBytes: number;
  readonly allBytes: number;
  readonly damagedSegments: number;
}

export interface LastVerifications {
  readonly full?: LastVerification;
  readonly quick?: LastVerification;
  readonly unfinished?: UnfinishedVerification;
}

export interface Job {
  readonly id: string;
  readonly kind: string;
  readonly subject?: string;
  readonly state: 'queued' | 'running' | 'done' | 'failed' | 'cancelled';
  readonly createdAt: string;
  readonly endedAt?: string;
  readonly progress?: { readonly phase?: string; readonly done: number; readonly all?: number };
  readonly result?: unknown;
  readonly error?: { readonly code: string; readonly detail: string; readonly remedy: string };
}

export interface Ratios {
  readonly thin: number;
  readonly lineage: number;
  readonly dedupe: number;
  readonly compression: number;
  readonly total: number;
}

export interface SpaceReport {
  readonly logicalBytes: number;
  readonly allocatedBytes: number;
  readonly uniqueBytes: number;
  readonly dataStoredBytes: number;
  readonly metadataBytes: number;
  readonly garbageBytes: number;
  readonly indexBytes: number;
  readonly logBytes: number;
  readonly logSpareBytes: number;
  readonly catalogBytes: number;
  readonly storedBytes: number;
  readonly ratios: Ratios;
  readonly ratiosWithoutBackups: Ratios;
  readonly vms: number;
  readonly backups: number;
}

export interface OwnerSpace {
  readonly kind: 'vm' | 'backup';
  readonly id: string;
  readonly name: string;
  readonly logicalBytes: number;
  readonly allocatedBytes: number;
  readonly exclusiveBytes: number;
  readonly fairBytes: number;
}

export interface OwnerName {
  readonly kind: 'vm' | 'backup';
  readonly id: string;
  readonly name: string;
}

export interface AccountLine {
  readonly name?: string;
  readonly id?: string;
  readonly isGone?: boolean;
  readonly vms: number;
  readonly backups: number;
  readonly exclusiveBytes: number;
  readonly sharedBytes: number;
  readonly totalBytes: number;
}

export interface AccountsPage extends Page<AccountLine> {
  readonly by: 'vm' | 'tag' | 'policy';
  readonly totals: {
    readonly ownedBytes: number;
    readonly untoldBytes: number;
    readonly inFlightBytes: number;
    readonly garbageBytes: number;
    readonly indexBytes: number;
    readonly logBytes: number;
    readonly catalogBytes: number;
    readonly storedBytes: number;
  };
}

export interface HoldersPage extends Page<OwnerName & { readonly sharedBytes: number }> {
  readonly owner: OwnerName;
  readonly reachedBytes: number;
  readonly exclusiveBytes: number;
  readonly untoldBytes: number;
  readonly holders: number;
}

export interface ReclaimReport extends Page<
  OwnerName & { readonly sharedBytes: number; readonly aloneBytes: number }
> {
  readonly vms: number;
  readonly backups: number;
  readonly locked: number;
  readonly freedBytes: number;
  readonly aloneBytes: number;
  readonly stayingBytes: number;
  readonly inFlightBytes: number;
  readonly untoldBytes: number;
  readonly holders: number;
}

export interface DiffPage extends Page<{
  readonly offset: number;
  readonly bytes: number;
  readonly changedBytes: number;
}> {
  readonly a: { readonly name: string; readonly disk: string; readonly sizeBytes: number };
  readonly b: { readonly name: string; readonly disk: string; readonly sizeBytes: number };
  readonly grainBytes: number;
  readonly comparedBytes: number;
  readonly changedBytes: number;
}

export interface DiskRoots extends OwnerName {
  readonly items: readonly {
    readonly disk: string;
    readonly root: string;
    readonly sizeBytes: number;
    readonly chunkBytes: number;
    readonly height: number;
  }[];
}

export interface ReclaimPlan extends Page<OwnerName & { readonly createdAt: string }> {
  readonly wantedBytes: number;
  readonly freedBytes: number;
  readonly isEnough: boolean;
  readonly vms: number;
  readonly backups: number;
  readonly locked: number;
}

export interface ActivityBucket {
  readonly start: string;
  readonly seconds: number;
  readonly writtenBytes: number;
  readonly zeroBytes: number;
  readonly knownBytes: number;
  readonly newBytes: number;
  readonly storedBytes: number;
  readonly rawBytes: number;
}

export interface Tripwire {
  readonly sensitivity: 'off' | 'low' | 'normal' | 'high';
  readonly state: 'off' | 'learning' | 'blind' | 'quiet' | 'jump';
  readonly readyAt?: string;
  readonly usualShare: number;
  readonly hourLimitBytes: number;
  readonly dayLimitBytes: number;
  readonly trip?: {
    readonly at: string;
    readonly since: string;
    readonly lastSeenAt: string;
    readonly window: 'hour' | 'day';
    readonly newBytes: number;
    readonly rawBytes: number;
    readonly limitBytes: number;
    readonly backup?: { readonly id: string; readonly name: string };
    readonly lockedUntil?: string;
    readonly notLocked?: string;
  };
}

export interface Scope {
  readonly vms?: readonly string[];
  readonly tags?: readonly string[];
}

export interface Token {
  readonly id: string;
  readonly name: string;
  readonly role: string;
  readonly scope?: Scope;
  readonly createdAt: string;
  readonly expiresAt?: string;
  readonly expired: boolean;
  readonly lastUsedAt?: string;
  readonly lastUsedFrom?: string;
}

export interface CreatedToken extends Token {
  readonly token: string;
}

export interface Whoami {
  readonly name: string;
  readonly role: string;
  readonly scope?: Scope;
  readonly expiresAt?: string;
}

export interface AuditEntry {
  readonly at: string;
  readonly kind: 'change' | 'outcome' | 'refusal';
  readonly request: string;
  readonly operation: string;
  readonly actor?: { readonly name: string };
  readonly from?: string;
  readonly subjects?: readonly string[];
  readonly status?: number;
  readonly code?: string;
}
