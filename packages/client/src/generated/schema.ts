/** What the operations of REST take and answer. Written by scripts/openapi.ts from docs/openapi.json: do not change it by hand. */

export interface components {
    schemas: {
        readonly AccountLine: {
            readonly backups: number;
            /** @description what nobody else holds: what deleting all of the line frees */
            readonly exclusiveBytes: number;
            /** @description of the VM or the policy */
            readonly id?: string;
            /** @description the VM is gone; these are backups that are left */
            readonly isGone?: boolean;
            /** @description of the VM, the tag or the policy; absent for what carries no tag, for all VMs by policy, and for backups that none took */
            readonly name?: string;
            /** @description its part of what it holds with others: each of them has an equal one */
            readonly sharedBytes: number;
            /** @description the two together */
            readonly totalBytes: number;
            readonly vms: number;
        };
        readonly AccountTotals: {
            readonly catalogBytes: number;
            readonly garbageBytes: number;
            /** @description what imports and destages under way have written and nobody holds yet */
            readonly inFlightBytes: number;
            readonly indexBytes: number;
            /** @description the log, with its spare files */
            readonly logBytes: number;
            /** @description what VMs and backups hold: all lines, and untoldBytes */
            readonly ownedBytes: number;
            /** @description all of these together */
            readonly storedBytes: number;
            /** @description part of ownedBytes that several hold who are not told apart; see docs/reports.md */
            readonly untoldBytes: number;
        };
        readonly AccountsPage: {
            readonly by: "vm" | "tag" | "policy";
            readonly items: readonly components["schemas"]["AccountLine"][];
            readonly nextCursor?: string;
            readonly totals: components["schemas"]["AccountTotals"];
        };
        readonly ActivityBucket: {
            /** @description those that were stored already */
            readonly knownBytes: number;
            /** @description those that were not */
            readonly newBytes: number;
            /** @description new ones that compression could not make shorter, as random bytes are */
            readonly rawBytes: number;
            /** @description how long it is; the newest has not ended yet */
            readonly seconds: number;
            /** @description RFC 3339, UTC */
            readonly start: string;
            /** @description what the new ones came to, compressed */
            readonly storedBytes: number;
            /** @description bytes of the chunks that were destaged; the sum of the next three */
            readonly writtenBytes: number;
            /** @description those of them that were zeros */
            readonly zeroBytes: number;
        };
        readonly ActivityPage: {
            /** @description newest first, without those in which nothing was written */
            readonly items: readonly components["schemas"]["ActivityBucket"][];
            /** @description absent on the last page */
            readonly nextCursor?: string;
        };
        readonly AssignedVm: {
            readonly id: string;
            readonly isSuspended: boolean;
            readonly name: string;
            /** @description that it is assigned by; absent: by name */
            readonly tag?: string;
        };
        readonly AssignedVmPage: {
            readonly items: readonly components["schemas"]["AssignedVm"][];
            /** @description absent on the last page */
            readonly nextCursor?: string;
        };
        readonly AuditEntry: {
            readonly actor?: {
                readonly name: string;
                readonly tokenId?: string;
            };
            /** @description of a break: the last line before it that is durable for certain */
            readonly after?: number;
            /** @description query and body, without what may be secret */
            readonly asked?: unknown;
            /** @description RFC 3339, UTC */
            readonly at: string;
            /** @description of the error */
            readonly code?: string;
            /** @description address of the client; absent for the Unix socket */
            readonly from?: string;
            /** @description `break`: a sync failed, and lines between `after` and this one may be missing */
            readonly kind: "change" | "outcome" | "refusal" | "break";
            /** @description refusals that were left out before it, because there were too many */
            readonly left?: number;
            readonly ms?: number;
            /** @description counts lines */
            readonly n: number;
            /** @description the operationId */
            readonly operation: string;
            /** @description SHA-256 of the line before; of a break, of the line `after` */
            readonly prev: string;
            /** @description id of the request, as in the log and in problem documents */
            readonly request: string;
            /** @description of the answer */
            readonly status?: number;
            /** @description what it was about, as it was named, and by its id */
            readonly subjects?: readonly string[];
        };
        readonly AuditPage: {
            readonly items: readonly components["schemas"]["AuditEntry"][];
            /** @description absent on the last page */
            readonly nextCursor?: string;
        };
        readonly Backup: {
            /** @description application: the file systems of the guest were at rest; crash: as after a power cut at that instant */
            readonly consistency: "crash" | "application";
            /** @description RFC 3339, UTC */
            readonly createdAt: string;
            readonly disks: readonly components["schemas"]["Disk"][];
            /** @description RFC 3339, UTC, or `never`; absent: the policy that took it decides, and without one it never does */
            readonly expiresAt?: string;
            readonly id: string;
            /** @description names of 1 to 63 of A-Z a-z 0-9 . _ / -, values of at most 255 bytes */
            readonly labels: {
                readonly [key: string]: string;
            };
            readonly lineage: string;
            /** @description until then it cannot be deleted and does not expire; RFC 3339, UTC */
            readonly lockedUntil?: string;
            readonly name: string;
            readonly note?: string;
            readonly policy?: components["schemas"]["BackupPolicy"];
            /** @description those of the VM when the backup was taken */
            readonly tags: readonly string[];
            /** @description whether its disks are those of the VM's backup before it; absent until that is known */
            readonly unchanged?: boolean;
            readonly vmId: string;
            /** @description name of the VM when the backup was taken */
            readonly vmName: string;
        };
        readonly BackupChange: {
            readonly expiresAt?: string | "never" | null;
            /** @description names of 1 to 63 of A-Z a-z 0-9 . _ / -, values of at most 255 bytes */
            readonly labels?: {
                readonly [key: string]: string;
            };
            readonly lockedUntil?: string | null;
            /** @description 1 to 255 bytes of UTF-8 without `/`, `@` and control characters */
            readonly name?: string;
            readonly note?: string | null;
        };
        readonly BackupImportResult: {
            readonly backup: components["schemas"]["Backup"];
            /** @description bytes, in whole chunks, in which the disk differs from the backup that it follows */
            readonly changedBytes: number;
            /** @description bytes of a chunk, which the root depends on */
            readonly chunkBytes: number;
            readonly chunks: number;
            /** @description whether a secret of the store is in the root: equal for equal disks within the store only, and not to be computed elsewhere */
            readonly keyed: boolean;
            readonly knownChunks: number;
            readonly newBytes: number;
            readonly newChunks: number;
            readonly readBytes: number;
            /** @description id of the top node of the disk that was imported: equal for equal disks of one size */
            readonly root: string;
            readonly sizeBytes: number;
            /** @description bytes that the import added to the segments, compressed */
            readonly storedBytes: number;
            readonly zeroChunks: number;
        };
        readonly BackupPage: {
            readonly items: readonly components["schemas"]["Backup"][];
            /** @description absent on the last page */
            readonly nextCursor?: string;
        };
        readonly BackupPolicy: {
            /** @description when the backup was due; RFC 3339, UTC */
            readonly dueAt: string;
            readonly id: string;
            /** @description its name when the backup was taken */
            readonly name: string;
            readonly rule: string;
        };
        readonly CreatedToken: {
            /** @description RFC 3339, UTC */
            readonly createdAt: string;
            readonly expired: boolean;
            /** @description RFC 3339, UTC */
            readonly expiresAt?: string;
            readonly id: string;
            /** @description RFC 3339, UTC; after a crash up to ten minutes may be missing */
            readonly lastUsedAt?: string;
            /** @description address of the client */
            readonly lastUsedFrom?: string;
            readonly name: string;
            /** @description viewer: look; operator: also change, and read disks; admin: also tokens and the audit trail */
            readonly role: "viewer" | "operator" | "admin";
            readonly scope?: components["schemas"]["Scope"];
            /** @description the text of the token; it is told this once and stored nowhere */
            readonly token: string;
        };
        readonly DamagedDisk: {
            readonly damagedBytes: number;
            readonly disk: string;
            /** @description of the VM or backup */
            readonly id: string;
            readonly kind: "vm" | "backup";
            /** @description ranges that are not listed */
            readonly moreRanges: number;
            /** @description `web`, or `web@monday` */
            readonly name: string;
            /** @description in order; what lies below a damaged node is damaged as a whole */
            readonly ranges: readonly {
                readonly bytes: number;
                readonly offset: number;
            }[];
            readonly sizeBytes: number;
        };
        readonly DiffItem: {
            readonly bytes: number;
            /** @description of these, the bytes of chunks that differ */
            readonly changedBytes: number;
            readonly offset: number;
        };
        readonly DiffPage: {
            readonly a: components["schemas"]["DiffSide"];
            readonly b: components["schemas"]["DiffSide"];
            /** @description of the items of this page */
            readonly changedBytes: number;
            /** @description how far this page goes from where it began */
            readonly comparedBytes: number;
            readonly grainBytes: number;
            readonly items: readonly components["schemas"]["DiffItem"][];
            readonly nextCursor?: string;
        };
        readonly DiffSide: {
            readonly disk: string;
            readonly name: string;
            readonly sizeBytes: number;
        };
        readonly Disk: {
            readonly name: string;
            readonly sizeBytes: number;
        };
        readonly DiskMap: {
            /** @description without gaps, from where the page begins */
            readonly extents: readonly components["schemas"]["Extent"][];
            /** @description absent on the last page */
            readonly nextCursor?: string;
            readonly sizeBytes: number;
        };
        readonly DiskRoots: {
            readonly id: string;
            readonly items: readonly components["schemas"]["NamedRoot"][];
            readonly kind: "vm" | "backup";
            readonly name: string;
        };
        readonly DueRun: {
            /** @description RFC 3339, UTC */
            readonly at: string;
            readonly isRunning: boolean;
            readonly policy: string;
            readonly policyId: string;
            readonly rule: string;
        };
        readonly DueRunPage: {
            readonly items: readonly components["schemas"]["DueRun"][];
            /** @description absent on the last page */
            readonly nextCursor?: string;
        };
        readonly Event: {
            /** @description RFC 3339 */
            readonly at: string;
            readonly data?: {
                readonly [key: string]: string | number | boolean;
            };
            /** @description ascends, over restarts too */
            readonly id: number;
            /** @description see docs/operating.md */
            readonly kind: string;
            readonly severity: "info" | "warning" | "error";
            /** @description what it is about: the name of a VM, `vm@backup`, a policy, a webhook, a file */
            readonly subject?: string;
            /** @description for people */
            readonly text: string;
        };
        readonly EventPage: {
            readonly items: readonly components["schemas"]["Event"][];
            readonly nextCursor?: string;
        };
        readonly Extent: {
            readonly hole: boolean;
            readonly length: number;
            readonly offset: number;
        };
        readonly GcReport: {
            readonly compactedSegments: number;
            readonly damagedSegments: number;
            readonly deadChunks: number;
            readonly droppedSegments: number;
            readonly freedBytes: number;
            readonly liveBytes: number;
            readonly liveChunks: number;
            readonly roots: number;
        };
        readonly GcRequest: {
            /** @description free also what is dead in segments of which more than three quarters are alive; rewrites what is alive in them */
            readonly thorough?: boolean;
        };
        readonly GuestFile: {
            readonly gid: number;
            /** @description permissions, set-user-id and its kin */
            readonly mode: number;
            /** @description RFC 3339, UTC */
            readonly modifiedAt: string;
            /** @description with U+FFFD for what is no UTF-8 */
            readonly path: string;
            /** @description the bytes, in Base64; only where they are no UTF-8 */
            readonly pathBase64?: string;
            readonly sizeBytes: number;
            /** @description of a symlink */
            readonly target?: string;
            /** @description the bytes, in Base64; only where they are no UTF-8 */
            readonly targetBase64?: string;
            readonly type: "file" | "directory" | "symlink" | "character-device" | "block-device" | "fifo" | "socket" | "unknown";
            readonly uid: number;
        };
        readonly GuestFilePage: {
            readonly items: readonly components["schemas"]["GuestFile"][];
            /** @description absent on the last page */
            readonly nextCursor?: string;
        };
        readonly GuestFileSystem: {
            readonly label?: string;
            /** @description `/dev/sda1`: partition 1 of the first disk; `/dev/GROUP/VOLUME` of LVM; `/dev/sdb`: all of the second disk */
            readonly name: string;
            readonly sizeBytes?: number;
            /** @description `ext4`, `xfs`, `ntfs`, `swap`, `crypto_LUKS`, … */
            readonly type: string;
        };
        readonly GuestFileSystems: {
            /** @description at most 256 */
            readonly items: readonly components["schemas"]["GuestFileSystem"][];
            /** @description those that were recognised; paths without a file system are of the first */
            readonly operatingSystems: readonly components["schemas"]["GuestSystem"][];
        };
        readonly GuestMount: {
            readonly fileSystem: string;
            readonly path: string;
        };
        readonly GuestSystem: {
            /** @description that of its `/` */
            readonly fileSystem: string;
            readonly mounts: readonly components["schemas"]["GuestMount"][];
            /** @description what it calls itself */
            readonly product?: string;
        };
        readonly Health: {
            /** @description names of the checks of `GET /ready` that are not ok */
            readonly problems: readonly string[];
            readonly status: "ok" | "degraded" | "failed";
            /** @description full: reads go on, writes wait for room. failed: a sync failed, restart after checking the disk */
            readonly store: "ready" | "full" | "failed";
            readonly uptimeSeconds: number;
            readonly version: string;
        };
        readonly HeldBackups: {
            readonly backups: number;
            /** @description what they hold, compressed; absent: not known, for want of two backups to compare */
            readonly bytes?: number;
        };
        readonly Holder: {
            readonly id: string;
            readonly kind: "vm" | "backup";
            readonly name: string;
            /** @description what the two hold in common */
            readonly sharedBytes: number;
        };
        readonly HoldersPage: {
            /** @description what it holds alone */
            readonly exclusiveBytes: number;
            readonly holders: number;
            readonly items: readonly components["schemas"]["Holder"][];
            readonly nextCursor?: string;
            readonly owner: components["schemas"]["OwnerName"];
            /** @description all that it holds, alone or with others */
            readonly reachedBytes: number;
            /** @description of the store, in no number here: what several hold who are not told apart */
            readonly untoldBytes: number;
        };
        readonly ImportResult: {
            /** @description bytes of a chunk, which the root depends on */
            readonly chunkBytes: number;
            readonly chunks: number;
            /** @description whether a secret of the store is in the root: equal for equal disks within the store only, and not to be computed elsewhere */
            readonly keyed: boolean;
            readonly knownChunks: number;
            readonly newBytes: number;
            readonly newChunks: number;
            readonly readBytes: number;
            /** @description id of the top node of the disk that was imported: equal for equal disks of one size */
            readonly root: string;
            readonly sizeBytes: number;
            /** @description bytes that the import added to the segments, compressed */
            readonly storedBytes: number;
            readonly vm: components["schemas"]["Vm"];
            readonly zeroChunks: number;
        };
        readonly Job: {
            /** @description RFC 3339, UTC */
            readonly createdAt: string;
            /** @description RFC 3339, UTC */
            readonly endedAt?: string;
            readonly error?: components["schemas"]["JobError"];
            readonly id: string;
            readonly kind: "import" | "restore" | "gc" | "verify" | "repair";
            readonly progress?: components["schemas"]["Progress"];
            readonly result?: components["schemas"]["ImportResult"] | components["schemas"]["BackupImportResult"] | components["schemas"]["Vm"] | components["schemas"]["GcReport"] | components["schemas"]["VerifyReport"] | components["schemas"]["RepairReport"];
            /** @description RFC 3339, UTC */
            readonly startedAt?: string;
            readonly state: "queued" | "running" | "done" | "failed" | "cancelled";
            /** @description what it works on: the name of a VM, or a backup */
            readonly subject?: string;
        };
        readonly JobError: {
            readonly code: string;
            readonly detail: string;
            readonly remedy: string;
        };
        readonly JobPage: {
            readonly items: readonly components["schemas"]["Job"][];
            /** @description absent on the last page */
            readonly nextCursor?: string;
        };
        readonly LastVerification: {
            /** @description RFC 3339, UTC */
            readonly endedAt: string;
            readonly report: components["schemas"]["VerifyReport"];
            /** @description the server began it by itself */
            readonly scheduled: boolean;
            /** @description how long it took */
            readonly seconds: number;
            /** @description RFC 3339, UTC */
            readonly startedAt: string;
            /** @description RFC 3339, UTC: when a repair last looked again at what it had found damaged */
            readonly updatedAt?: string;
        };
        /** @description those that ran to their end, and a full one that is under way or was cut off */
        readonly LastVerifications: {
            readonly full?: components["schemas"]["LastVerification"];
            readonly quick?: components["schemas"]["LastVerification"];
            readonly unfinished?: components["schemas"]["UnfinishedVerification"];
        };
        readonly NamedRoot: {
            /** @description bytes of a chunk, which the root depends on */
            readonly chunkBytes: number;
            readonly disk: string;
            /** @description levels of nodes above the chunks */
            readonly height: number;
            /** @description whether a secret of the store is in the root: equal for equal disks within the store only, and not to be computed elsewhere */
            readonly keyed: boolean;
            /** @description id of the top node; zeros for a disk that is all hole */
            readonly root: string;
            readonly sizeBytes: number;
        };
        readonly NewToken: {
            /** @description RFC 3339; absent: never */
            readonly expiresAt?: string;
            /** @description 1 to 255 bytes of UTF-8 without `/`, `@` and control characters */
            readonly name: string;
            /** @description viewer: look; operator: also change, and read disks; admin: also tokens and the audit trail */
            readonly role: "viewer" | "operator" | "admin";
            /** @description VMs whose name fits or that carry a tag, and their backups; absent: everything */
            readonly scope?: {
                /** @description VMs that carry one of these tags */
                readonly tags?: readonly string[];
                /** @description names of VMs, in which `*` stands for any characters */
                readonly vms?: readonly string[];
            };
        };
        readonly NewWebhook: {
            /** @description what it verifies signatures with; nobody is told it again */
            readonly secret: string;
            readonly webhook: components["schemas"]["Webhook"];
        };
        readonly OwnerName: {
            readonly id: string;
            readonly kind: "vm" | "backup";
            readonly name: string;
        };
        readonly OwnerSpace: {
            readonly allocatedBytes: number;
            /** @description what deleting it alone would free, after the next gc */
            readonly exclusiveBytes: number;
            /** @description that, and an equal part of what it shares: those of all owners are what is stored of data and nodes */
            readonly fairBytes: number;
            readonly id: string;
            readonly kind: "vm" | "backup";
            readonly logicalBytes: number;
            readonly name: string;
        };
        readonly OwnerSpacePage: {
            readonly items: readonly components["schemas"]["OwnerSpace"][];
            readonly nextCursor?: string;
        };
        readonly PoliciesOfVm: {
            readonly items: readonly components["schemas"]["PolicyOfVm"][];
        };
        readonly Policy: {
            /** @description RFC 3339, UTC */
            readonly changedAt: string;
            /** @description RFC 3339, UTC */
            readonly createdAt: string;
            readonly id: string;
            readonly isSuspended: boolean;
            readonly name: string;
            readonly note?: string;
            /** @description the guest agent of each VM */
            readonly quiesce?: string;
            readonly rules: readonly components["schemas"]["PolicyRule"][];
            /** @description VMs with one of these are assigned */
            readonly tags: readonly string[];
        };
        readonly PolicyFailure: {
            /** @description RFC 3339, UTC */
            readonly at: string;
            readonly code: string;
            readonly detail: string;
            /** @description RFC 3339, UTC */
            readonly dueAt: string;
            readonly rule: string;
            readonly vmId: string;
            readonly vmName: string;
        };
        readonly PolicyFailurePage: {
            readonly items: readonly components["schemas"]["PolicyFailure"][];
            /** @description absent on the last page */
            readonly nextCursor?: string;
        };
        readonly PolicyOfVm: {
            readonly id: string;
            /** @description the policy is, or it is for this VM */
            readonly isSuspended: boolean;
            readonly name: string;
            readonly tag?: string;
        };
        readonly PolicyPage: {
            readonly items: readonly components["schemas"]["Policy"][];
            /** @description absent on the last page */
            readonly nextCursor?: string;
        };
        readonly PolicyRule: {
            readonly lastRun?: components["schemas"]["PolicyRun"];
            readonly name: string;
            /** @description RFC 3339, UTC */
            readonly nextRunAt?: string;
            readonly retention: components["schemas"]["Retention"];
            readonly running?: components["schemas"]["PolicyRun"];
            readonly schedule: components["schemas"]["Schedule"];
        };
        readonly PolicyRun: {
            readonly backups: number;
            /** @description RFC 3339, UTC */
            readonly dueAt: string;
            /** @description RFC 3339, UTC */
            readonly endedAt?: string;
            /** @description VMs that have no backup of this run */
            readonly failed: number;
            /** @description how often it went through the VMs */
            readonly passes: number;
            /** @description RFC 3339, UTC */
            readonly startedAt: string;
        };
        readonly Problem: {
            /** @description what went wrong, for programs: stable */
            readonly code: string;
            /** @description what went wrong this time, for people */
            readonly detail: string;
            /** @description names this request in the log of the server */
            readonly instance: string;
            /** @description what to do about it */
            readonly remedy: string;
            readonly status: number;
            readonly title: string;
            /** @description `urn:pando:problem:<code>` */
            readonly type: string;
        };
        readonly Progress: {
            /** @description absent while nobody knows */
            readonly all?: number;
            readonly done: number;
            readonly phase?: string;
        };
        readonly Ready: {
            readonly checks: readonly components["schemas"]["ReadyCheck"][];
            /** @description no check has failed; there may be warnings */
            readonly ready: boolean;
        };
        readonly ReadyCheck: {
            /** @description for people */
            readonly detail?: string;
            readonly name: string;
            readonly status: "ok" | "warning" | "failed";
        };
        readonly ReclaimPlan: {
            readonly backups: number;
            /** @description what deleting all of the plan frees, after the next gc */
            readonly freedBytes: number;
            readonly isEnough: boolean;
            /** @description it is proven that no fewer VMs and backups free as much; never with `oldest` */
            readonly isFewest: boolean;
            /** @description what to delete: backups before VMs, the oldest first */
            readonly items: readonly components["schemas"]["Reclaimable"][];
            /** @description backups that may not go because they are locked */
            readonly locked: number;
            readonly nextCursor?: string;
            readonly vms: number;
            readonly wantedBytes: number;
        };
        readonly ReclaimPlanRequest: {
            /** @description how much to free */
            readonly bytes: number;
            /** @description `nextCursor` of the page before */
            readonly cursor?: string;
            /** @description VMs without clients may go, too */
            readonly includeVms?: boolean;
            /** @description items a page; 100 when absent */
            readonly limit?: number;
            /** @description the oldest that are enough (when absent), or as few as can be found; `isFewest` says whether these are the fewest */
            readonly prefer?: "oldest" | "smallest";
            /** @description those whose names begin so */
            readonly prefix?: string;
            /** @description those that carry it */
            readonly tag?: string;
        };
        readonly ReclaimReport: {
            /** @description the sum of what deleting each alone would free */
            readonly aloneBytes: number;
            readonly backups: number;
            /** @description what deleting all of them frees, after the next gc */
            readonly freedBytes: number;
            readonly holders: number;
            /** @description of that, what only work under way holds besides them */
            readonly inFlightBytes: number;
            /** @description who holds what stays, those with most first */
            readonly items: readonly components["schemas"]["StayingWith"][];
            /** @description of these backups, those that cannot be deleted yet */
            readonly locked: number;
            readonly nextCursor?: string;
            /** @description what of theirs stays, because others hold it */
            readonly stayingBytes: number;
            /** @description of the store, in no number here but freedBytes: what several hold who are not told apart */
            readonly untoldBytes: number;
            readonly vms: number;
        };
        readonly ReclaimRequest: {
            /** @description `nextCursor` of the page before */
            readonly cursor?: string;
            readonly kind?: "vm" | "backup";
            /** @description items a page; 100 when absent */
            readonly limit?: number;
            /** @description VMs and backups, by id or name */
            readonly owners?: readonly string[];
            /** @description those whose names begin so */
            readonly prefix?: string;
            /** @description those that carry it */
            readonly tag?: string;
            /** @description the backups of the VMs, too */
            readonly withBackups?: boolean;
        };
        readonly Reclaimable: {
            readonly createdAt: string;
            readonly id: string;
            readonly kind: "vm" | "backup";
            readonly name: string;
        };
        readonly RepairReport: {
            /** @description damaged nodes came back, and below them more is damaged: the same source may hold that too */
            readonly again: boolean;
            /** @description chunks of data that disks refer to and that were damaged or missing, as far as could be seen */
            readonly lostChunks: number;
            /** @description and nodes of their trees */
            readonly lostNodes: number;
            /** @description of the source, each reading of it */
            readonly readBytes: number;
            readonly repairedChunks: number;
            /** @description disks that were damaged and are whole again; at most 100 */
            readonly repairedDisks: readonly {
                readonly disk: string;
                readonly id: string;
                readonly kind: "vm" | "backup";
                readonly name: string;
            }[];
            readonly repairedNodes: number;
            readonly report: components["schemas"]["VerifyReport"];
            /** @description RFC 3339, UTC: when the verification ended by which it is known what is damaged */
            readonly verifiedAt: string;
        };
        /** @description Kept is what one of them keeps, in the time zone of the schedule; with none of them, everything */
        readonly Retention: {
            /** @description so many of the newest, however old; 1 when absent */
            readonly keepAtLeast?: number;
            /** @description likewise of days */
            readonly keepDaily?: number;
            /** @description those that are younger */
            readonly keepForMinutes?: number;
            /** @description the newest of each of the last so many hours that have any */
            readonly keepHourly?: number;
            /** @description so many of the newest */
            readonly keepLast?: number;
            /** @description of months */
            readonly keepMonthly?: number;
            /** @description of weeks (ISO 8601) */
            readonly keepWeekly?: number;
            /** @description of years */
            readonly keepYearly?: number;
        };
        readonly Schedule: {
            /** @description times of the day; this or `everyMinutes` */
            readonly at?: readonly string[];
            /** @description every so many days, counted from 1970-01-01; goes with no other days */
            readonly everyDays?: number;
            /** @description from `from` on, every so many minutes until before `to`; at most 1,440 */
            readonly everyMinutes?: number;
            /** @description HH:MM */
            readonly from?: string;
            readonly monthDays?: readonly (number | "last")[];
            /** @description IANA name, such as Europe/Berlin or UTC */
            readonly timeZone: string;
            /** @description HH:MM, up to 24:00; not after `from`: on the next day */
            readonly to?: string;
            readonly weekdays?: readonly ("mon" | "tue" | "wed" | "thu" | "fri" | "sat" | "sun")[];
        };
        /** @description VMs whose name fits or that carry a tag, and their backups; absent: everything */
        readonly Scope: {
            /** @description VMs that carry one of these tags */
            readonly tags?: readonly string[];
            /** @description names of VMs, in which `*` stands for any characters */
            readonly vms?: readonly string[];
        };
        readonly SpaceHistory: {
            readonly grain: "5m" | "1h" | "1d";
            readonly items: readonly components["schemas"]["SpaceSample"][];
            readonly nextCursor?: string;
        };
        readonly SpaceRatios: {
            /** @description bytes before / bytes after */
            readonly compression: number;
            /** @description bytes before / bytes after */
            readonly dedupe: number;
            /** @description bytes before / bytes after */
            readonly lineage: number;
            /** @description bytes before / bytes after */
            readonly thin: number;
            /** @description bytes before / bytes after */
            readonly total: number;
        };
        readonly SpaceReport: {
            readonly allocatedBytes: number;
            readonly backups: number;
            readonly catalogBytes: number;
            readonly dataStoredBytes: number;
            readonly garbageBytes: number;
            readonly indexBytes: number;
            /** @description whether the ids of chunks are keyed with a secret of the store */
            readonly keyed: boolean;
            readonly logBytes: number;
            readonly logSpareBytes: number;
            readonly logicalBytes: number;
            readonly metadataBytes: number;
            readonly ratios: components["schemas"]["SpaceRatios"];
            readonly ratiosWithoutBackups: components["schemas"]["SpaceRatios"];
            readonly storedBytes: number;
            readonly uniqueBytes: number;
            readonly vms: number;
        };
        readonly SpaceSample: {
            /** @description RFC 3339 */
            readonly at: string;
            readonly catalogBytes: number;
            /** @description of the space report, where one was made at that time */
            readonly exact?: {
                readonly allocatedBytes: number;
                readonly backups: number;
                readonly dataStoredBytes: number;
                readonly garbageBytes: number;
                readonly logicalBytes: number;
                readonly metadataBytes: number;
                readonly uniqueBytes: number;
                readonly vms: number;
            };
            readonly indexBytes: number;
            readonly logBytes: number;
            readonly segmentBytes: number;
            readonly storedBytes: number;
        };
        readonly StayingWith: {
            /** @description of that, what would be freed as well if it went too */
            readonly aloneBytes: number;
            readonly id: string;
            readonly kind: "vm" | "backup";
            readonly name: string;
            /** @description what it holds of what stays */
            readonly sharedBytes: number;
        };
        readonly Token: {
            /** @description RFC 3339, UTC */
            readonly createdAt: string;
            readonly expired: boolean;
            /** @description RFC 3339, UTC */
            readonly expiresAt?: string;
            readonly id: string;
            /** @description RFC 3339, UTC; after a crash up to ten minutes may be missing */
            readonly lastUsedAt?: string;
            /** @description address of the client */
            readonly lastUsedFrom?: string;
            readonly name: string;
            /** @description viewer: look; operator: also change, and read disks; admin: also tokens and the audit trail */
            readonly role: "viewer" | "operator" | "admin";
            readonly scope?: components["schemas"]["Scope"];
        };
        readonly TokenPage: {
            readonly items: readonly components["schemas"]["Token"][];
            /** @description absent on the last page */
            readonly nextCursor?: string;
        };
        readonly Tripwire: {
            /** @description the same within a day */
            readonly dayLimitBytes: number;
            /** @description bytes of that kind within an hour that it takes to trip */
            readonly hourLimitBytes: number;
            /** @description RFC 3339, UTC: when it has learned enough */
            readonly readyAt?: string;
            /** @description how little it takes; normal unless set */
            readonly sensitivity: "off" | "low" | "normal" | "high";
            /** @description learning: too little is known of the VM yet; blind: nearly all that it writes cannot be compressed anyway, so nothing would show; jump: what it writes now looks as if its disk were being encrypted */
            readonly state: "off" | "learning" | "blind" | "quiet" | "jump";
            readonly trip?: components["schemas"]["TripwireTrip"];
            /** @description share of the new bytes that compression cannot make shorter, on the median day */
            readonly usualShare: number;
        };
        readonly TripwireTrip: {
            /** @description RFC 3339, UTC */
            readonly at: string;
            /** @description the last one before that; absent: there was none */
            readonly backup?: {
                readonly id: string;
                readonly name: string;
            };
            /** @description RFC 3339, UTC: to the hour */
            readonly lastSeenAt: string;
            /** @description how many of those it took */
            readonly limitBytes: number;
            /** @description RFC 3339, UTC */
            readonly lockedUntil?: string;
            /** @description bytes that were new in that window */
            readonly newBytes: number;
            /** @description code of the error that kept it from being locked; that is tried again */
            readonly notLocked?: string;
            /** @description those of them that compression could not make shorter */
            readonly rawBytes: number;
            /** @description RFC 3339, UTC: when what was seen began, as far as can be told */
            readonly since: string;
            readonly window: "hour" | "day";
        };
        readonly UnfinishedVerification: {
            readonly allBytes: number;
            /** @description segments in which it had found damage */
            readonly damagedSegments: number;
            readonly doneBytes: number;
            /** @description RFC 3339, UTC: when it was that far */
            readonly keptAt: string;
            /** @description RFC 3339, UTC */
            readonly startedAt: string;
        };
        readonly VerifyReport: {
            /** @description of all segments */
            readonly bytes: number;
            readonly checkedDisks: number;
            /** @description chunks that were hashed; none when quick */
            readonly chunks: number;
            readonly damaged: readonly {
                /** @description path inside the data directory */
                readonly file: string;
                readonly offset: number;
                readonly problem: string;
                /** @description when the file is a segment */
                readonly segment?: number;
            }[];
            /** @description disks with damage, clones and backups included; what has not been destaged is not looked at */
            readonly disks: readonly components["schemas"]["DamagedDisk"][];
            /** @description false: too much is damaged to find all disks with damage */
            readonly isComplete: boolean;
            /** @description references from nodes or disks to what is in no segment */
            readonly missingChunks: number;
            /** @description damaged places that are not listed */
            readonly moreDamaged: number;
            /** @description damaged disks that are not listed */
            readonly moreDisks: number;
            /** @description nodes of the trees of disks; a shared one counts once */
            readonly nodes: number;
            readonly quick: boolean;
            /** @description those of them that had been verified before this one went on; absent when it began at the start */
            readonly resumedBytes?: number;
        };
        readonly VerifyRequest: {
            /** @description structure only: headers and footers of segments, and that everything that disks refer to is in the index and in a segment; no chunk is hashed */
            readonly quick?: boolean;
            /** @description go on where the last full verification was cut off, when there is one (`unfinished` of GET /verify/last); from the start otherwise */
            readonly resume?: boolean;
        };
        readonly Vm: {
            /** @description clients that have one of its disks open now */
            readonly attachedClients: number;
            /** @description RFC 3339, UTC */
            readonly createdAt: string;
            readonly disks: readonly components["schemas"]["Disk"][];
            readonly id: string;
            /** @description shared by all that descends from one import or creation */
            readonly lineage: string;
            readonly name: string;
            /** @description what it is grouped by; sorted */
            readonly tags: readonly string[];
        };
        readonly VmImpact: {
            /** @description backups until the horizon */
            readonly created: number;
            readonly expired: number;
            readonly now: components["schemas"]["HeldBackups"];
            readonly steady?: components["schemas"]["HeldBackups"];
            readonly then: components["schemas"]["HeldBackups"];
            readonly vm: {
                readonly id: string;
                readonly name: string;
            };
        };
        readonly VmImpactPage: {
            readonly items: readonly components["schemas"]["VmImpact"][];
            /** @description absent on the last page */
            readonly nextCursor?: string;
        };
        readonly VmPage: {
            readonly items: readonly components["schemas"]["Vm"][];
            /** @description absent on the last page */
            readonly nextCursor?: string;
        };
        readonly Vms: {
            readonly items: readonly components["schemas"]["Vm"][];
        };
        readonly Webhook: {
            /** @description RFC 3339 */
            readonly createdAt: string;
            /** @description RFC 3339; when it took an event last, since the server was started */
            readonly deliveredAt?: string;
            /** @description it has not taken the newest event that it was sent */
            readonly failing?: {
                readonly problem: string;
                /** @description RFC 3339 */
                readonly since: string;
                readonly tries: number;
            };
            readonly id: string;
            /** @description it answered 410: nothing is sent there any more */
            readonly isGone: boolean;
            readonly kinds?: readonly string[];
            readonly severity?: "info" | "warning" | "error";
            readonly url: string;
        };
        readonly WebhookList: {
            readonly items: readonly components["schemas"]["Webhook"][];
        };
        readonly WebhookTest: {
            readonly problem?: string;
            readonly status?: number;
            readonly taken: boolean;
        };
        readonly Whoami: {
            /** @description RFC 3339, UTC */
            readonly expiresAt?: string;
            /** @description of the token; `socket` for the Unix socket */
            readonly name: string;
            /** @description viewer: look; operator: also change, and read disks; admin: also tokens and the audit trail */
            readonly role: "viewer" | "operator" | "admin";
            readonly scope?: components["schemas"]["Scope"];
            readonly tokenId?: string;
        };
    };
    responses: never;
    parameters: never;
    requestBodies: never;
    headers: never;
    pathItems: never;
}
export interface operations {
    readonly listAudit: {
        readonly parameters: {
            readonly query?: {
                /** @description `nextCursor` of the page before */
                readonly cursor?: string;
                /** @description items a page; 100 when absent */
                readonly limit?: number;
                /** @description RFC 3339: from then on */
                readonly since?: string;
                /** @description RFC 3339: before then */
                readonly until?: string;
                /** @description name or id of a token, or `socket` */
                readonly actor?: string;
                /** @description an operationId */
                readonly operation?: string;
                /** @description what it was about, as it was named, or by its id */
                readonly subject?: string;
            };
            readonly header?: never;
            readonly path?: never;
            readonly cookie?: never;
        };
        readonly requestBody?: never;
        readonly responses: {
            /** @description Default Response */
            readonly 200: {
                headers: {
                    readonly [name: string]: unknown;
                };
                content: {
                    readonly "application/json": components["schemas"]["AuditPage"];
                };
            };
        };
    };
    readonly listBackups: {
        readonly parameters: {
            readonly query?: {
                /** @description `nextCursor` of the page before */
                readonly cursor?: string;
                /** @description items a page; 100 when absent */
                readonly limit?: number;
                /** @description only of this VM */
                readonly vm?: string;
                /** @description only those that this policy took: its name or id; of one that is gone, its id */
                readonly policy?: string;
                /** @description only those with this label, as `name=value` */
                readonly label?: string;
            };
            readonly header?: never;
            readonly path?: never;
            readonly cookie?: never;
        };
        readonly requestBody?: never;
        readonly responses: {
            /** @description Default Response */
            readonly 200: {
                headers: {
                    readonly [name: string]: unknown;
                };
                content: {
                    readonly "application/json": components["schemas"]["BackupPage"];
                };
            };
        };
    };
    readonly getBackup: {
        readonly parameters: {
            readonly query?: never;
            readonly header?: never;
            readonly path: {
                readonly backup: string;
            };
            readonly cookie?: never;
        };
        readonly requestBody?: never;
        readonly responses: {
            /** @description Default Response */
            readonly 200: {
                headers: {
                    readonly [name: string]: unknown;
                };
                content: {
                    readonly "application/json": components["schemas"]["Backup"];
                };
            };
        };
    };
    readonly deleteBackup: {
        readonly parameters: {
            readonly query?: never;
            readonly header?: never;
            readonly path: {
                readonly backup: string;
            };
            readonly cookie?: never;
        };
        readonly requestBody?: never;
        readonly responses: {
            /** @description Done */
            readonly 204: {
                headers: {
                    readonly [name: string]: unknown;
                };
                content?: never;
            };
        };
    };
    readonly changeBackup: {
        readonly parameters: {
            readonly query?: never;
            readonly header?: never;
            readonly path: {
                readonly backup: string;
            };
            readonly cookie?: never;
        };
        readonly requestBody: {
            readonly content: {
                readonly "application/json": {
                    readonly expiresAt?: string | "never" | null;
                    /** @description names of 1 to 63 of A-Z a-z 0-9 . _ / -, values of at most 255 bytes */
                    readonly labels?: {
                        readonly [key: string]: string;
                    };
                    readonly lockedUntil?: string | null;
                    /** @description 1 to 255 bytes of UTF-8 without `/`, `@` and control characters */
                    readonly name?: string;
                    readonly note?: string | null;
                };
            };
        };
        readonly responses: {
            /** @description Default Response */
            readonly 200: {
                headers: {
                    readonly [name: string]: unknown;
                };
                content: {
                    readonly "application/json": components["schemas"]["Backup"];
                };
            };
        };
    };
    readonly readBackupDisk: {
        readonly parameters: {
            readonly query?: never;
            readonly header?: never;
            readonly path: {
                readonly backup: string;
                readonly disk: string;
            };
            readonly cookie?: never;
        };
        readonly requestBody?: never;
        readonly responses: {
            /** @description The disk */
            readonly 200: {
                headers: {
                    readonly "Accept-Ranges"?: string;
                    readonly "Content-Range"?: string;
                    readonly ETag?: string;
                    /** @description bytes of a chunk, which the root depends on */
                    readonly "Pando-Chunk-Bytes"?: string;
                    /** @description of a disk of a backup: id of its top node, 64 hex digits; what the whole disk hashes to */
                    readonly "Pando-Root"?: string;
                    /** @description `true` when a secret of the store is in the root; else it is absent */
                    readonly "Pando-Root-Keyed"?: string;
                    readonly [name: string]: unknown;
                };
                content: {
                    readonly "application/octet-stream": unknown;
                    readonly "application/vnd.pando.sparse": unknown;
                };
            };
            /** @description A range of the disk */
            readonly 206: {
                headers: {
                    readonly "Accept-Ranges"?: string;
                    readonly "Content-Range"?: string;
                    readonly ETag?: string;
                    /** @description bytes of a chunk, which the root depends on */
                    readonly "Pando-Chunk-Bytes"?: string;
                    /** @description of a disk of a backup: id of its top node, 64 hex digits; what the whole disk hashes to */
                    readonly "Pando-Root"?: string;
                    /** @description `true` when a secret of the store is in the root; else it is absent */
                    readonly "Pando-Root-Keyed"?: string;
                    readonly [name: string]: unknown;
                };
                content: {
                    readonly "application/octet-stream": unknown;
                    readonly "application/vnd.pando.sparse": unknown;
                };
            };
        };
    };
    readonly measureBackupDisk: {
        readonly parameters: {
            readonly query?: never;
            readonly header?: never;
            readonly path: {
                readonly backup: string;
                readonly disk: string;
            };
            readonly cookie?: never;
        };
        readonly requestBody?: never;
        readonly responses: {
            /** @description The disk */
            readonly 200: {
                headers: {
                    readonly "Accept-Ranges"?: string;
                    readonly "Content-Range"?: string;
                    readonly ETag?: string;
                    /** @description bytes of a chunk, which the root depends on */
                    readonly "Pando-Chunk-Bytes"?: string;
                    /** @description of a disk of a backup: id of its top node, 64 hex digits; what the whole disk hashes to */
                    readonly "Pando-Root"?: string;
                    /** @description `true` when a secret of the store is in the root; else it is absent */
                    readonly "Pando-Root-Keyed"?: string;
                    readonly [name: string]: unknown;
                };
                content: {
                    readonly "application/octet-stream": unknown;
                    readonly "application/vnd.pando.sparse": unknown;
                };
            };
            /** @description A range of the disk */
            readonly 206: {
                headers: {
                    readonly "Accept-Ranges"?: string;
                    readonly "Content-Range"?: string;
                    readonly ETag?: string;
                    /** @description bytes of a chunk, which the root depends on */
                    readonly "Pando-Chunk-Bytes"?: string;
                    /** @description of a disk of a backup: id of its top node, 64 hex digits; what the whole disk hashes to */
                    readonly "Pando-Root"?: string;
                    /** @description `true` when a secret of the store is in the root; else it is absent */
                    readonly "Pando-Root-Keyed"?: string;
                    readonly [name: string]: unknown;
                };
                content: {
                    readonly "application/octet-stream": unknown;
                    readonly "application/vnd.pando.sparse": unknown;
                };
            };
        };
    };
    readonly mapBackupDisk: {
        readonly parameters: {
            readonly query?: {
                /** @description `nextCursor` of the page before */
                readonly cursor?: string;
                /** @description items a page; 100 when absent */
                readonly limit?: number;
            };
            readonly header?: never;
            readonly path: {
                readonly backup: string;
                readonly disk: string;
            };
            readonly cookie?: never;
        };
        readonly requestBody?: never;
        readonly responses: {
            /** @description Default Response */
            readonly 200: {
                headers: {
                    readonly [name: string]: unknown;
                };
                content: {
                    readonly "application/json": components["schemas"]["DiskMap"];
                };
            };
        };
    };
    readonly proveBackupDisk: {
        readonly parameters: {
            readonly query: {
                readonly offset: number;
                readonly length: number;
            };
            readonly header?: never;
            readonly path: {
                readonly backup: string;
                readonly disk: string;
            };
            readonly cookie?: never;
        };
        readonly requestBody?: never;
        readonly responses: {
            /** @description The proof */
            readonly 200: {
                headers: {
                    readonly [name: string]: unknown;
                };
                content: {
                    readonly "application/vnd.pando.proof": unknown;
                };
            };
        };
    };
    readonly listBackupFileSystems: {
        readonly parameters: {
            readonly query?: never;
            readonly header?: never;
            readonly path: {
                readonly backup: string;
            };
            readonly cookie?: never;
        };
        readonly requestBody?: never;
        readonly responses: {
            /** @description Default Response */
            readonly 200: {
                headers: {
                    readonly [name: string]: unknown;
                };
                content: {
                    readonly "application/json": components["schemas"]["GuestFileSystems"];
                };
            };
        };
    };
    readonly listBackupFiles: {
        readonly parameters: {
            readonly query?: {
                /** @description `nextCursor` of the page before */
                readonly cursor?: string;
                /** @description items a page; 100 when absent */
                readonly limit?: number;
                /** @description absolute; default `/` */
                readonly path?: string;
                /** @description in place of `path`, for one that is no UTF-8: its bytes in Base64 */
                readonly pathBase64?: string;
                /** @description look into this one alone, by its name in `file-systems`; default: what the operating system mounts, or the only file system */
                readonly fileSystem?: string;
                readonly recursive?: boolean;
            };
            readonly header?: never;
            readonly path: {
                readonly backup: string;
            };
            readonly cookie?: never;
        };
        readonly requestBody?: never;
        readonly responses: {
            /** @description Default Response */
            readonly 200: {
                headers: {
                    readonly [name: string]: unknown;
                };
                content: {
                    readonly "application/json": components["schemas"]["GuestFilePage"];
                };
            };
        };
    };
    readonly archiveBackupFiles: {
        readonly parameters: {
            readonly query?: {
                /** @description absolute; default `/` */
                readonly path?: string;
                /** @description in place of `path`, for one that is no UTF-8: its bytes in Base64 */
                readonly pathBase64?: string;
                /** @description look into this one alone, by its name in `file-systems`; default: what the operating system mounts, or the only file system */
                readonly fileSystem?: string;
            };
            readonly header?: never;
            readonly path: {
                readonly backup: string;
            };
            readonly cookie?: never;
        };
        readonly requestBody?: never;
        readonly responses: {
            /** @description The directory */
            readonly 200: {
                headers: {
                    readonly [name: string]: unknown;
                };
                content: {
                    readonly "application/x-tar": unknown;
                };
            };
        };
    };
    readonly readBackupFile: {
        readonly parameters: {
            readonly query?: {
                /** @description absolute; default `/` */
                readonly path?: string;
                /** @description in place of `path`, for one that is no UTF-8: its bytes in Base64 */
                readonly pathBase64?: string;
                /** @description look into this one alone, by its name in `file-systems`; default: what the operating system mounts, or the only file system */
                readonly fileSystem?: string;
            };
            readonly header?: never;
            readonly path: {
                readonly backup: string;
            };
            readonly cookie?: never;
        };
        readonly requestBody?: never;
        readonly responses: {
            /** @description The file */
            readonly 200: {
                headers: {
                    readonly [name: string]: unknown;
                };
                content: {
                    readonly "application/octet-stream": unknown;
                };
            };
        };
    };
    readonly restoreBackup: {
        readonly parameters: {
            readonly query?: never;
            readonly header?: {
                /** @description The same key with the same request gets the same answer and makes nothing twice */
                readonly "idempotency-key"?: string;
            };
            readonly path: {
                readonly backup: string;
            };
            readonly cookie?: never;
        };
        readonly requestBody: {
            readonly content: {
                readonly "application/json": {
                    /** @description 1 to 255 bytes of UTF-8 without `/`, `@` and control characters */
                    readonly as?: string;
                    /** @description 1 to 255 bytes of UTF-8 without `/`, `@` and control characters */
                    readonly disk?: string;
                    readonly force?: boolean;
                    /** @description what a VM is grouped by, for policies, tokens and reports: names */
                    readonly tags?: readonly string[];
                    readonly verify?: boolean;
                };
            };
        };
        readonly responses: {
            /** @description Default Response */
            readonly 200: {
                headers: {
                    readonly [name: string]: unknown;
                };
                content: {
                    readonly "application/json": components["schemas"]["Vm"];
                };
            };
            /** @description The new VM */
            readonly 201: {
                headers: {
                    /** @description where the result, or the job, is found */
                    readonly Location?: string;
                    readonly [name: string]: unknown;
                };
                content: {
                    readonly "application/json": components["schemas"]["Vm"];
                };
            };
            /** @description The job */
            readonly 202: {
                headers: {
                    /** @description where the result, or the job, is found */
                    readonly Location?: string;
                    readonly [name: string]: unknown;
                };
                content: {
                    readonly "application/json": components["schemas"]["Job"];
                };
            };
        };
    };
    readonly rootsOfBackup: {
        readonly parameters: {
            readonly query?: never;
            readonly header?: never;
            readonly path: {
                readonly backup: string;
            };
            readonly cookie?: never;
        };
        readonly requestBody?: never;
        readonly responses: {
            /** @description Default Response */
            readonly 200: {
                headers: {
                    readonly [name: string]: unknown;
                };
                content: {
                    readonly "application/json": components["schemas"]["DiskRoots"];
                };
            };
        };
    };
    readonly lookUpChunks: {
        readonly parameters: {
            readonly query?: never;
            readonly header?: never;
            readonly path?: never;
            readonly cookie?: never;
        };
        readonly requestBody: {
            readonly content: {
                readonly "application/octet-stream": unknown;
            };
        };
        readonly responses: {
            /** @description A byte for each id */
            readonly 200: {
                headers: {
                    /** @description bytes of a chunk, of which ids are made */
                    readonly "Pando-Chunk-Bytes"?: string;
                    readonly [name: string]: unknown;
                };
                content: {
                    readonly "application/octet-stream": unknown;
                };
            };
        };
    };
    readonly diffDisks: {
        readonly parameters: {
            readonly query: {
                /** @description `nextCursor` of the page before */
                readonly cursor?: string;
                /** @description items a page; 100 when absent */
                readonly limit?: number;
                readonly a: string;
                /** @description `vm`, `vm@backup` or an id; with `/disk` behind it where there are several */
                readonly b: string;
                /** @description ranges closer together are one; a multiple of the chunk, which it is when absent */
                readonly grainBytes?: number;
            };
            readonly header?: never;
            readonly path?: never;
            readonly cookie?: never;
        };
        readonly requestBody?: never;
        readonly responses: {
            /** @description Default Response */
            readonly 200: {
                headers: {
                    readonly [name: string]: unknown;
                };
                content: {
                    readonly "application/json": components["schemas"]["DiffPage"];
                };
            };
        };
    };
    readonly listEvents: {
        readonly parameters: {
            readonly query?: {
                /** @description `nextCursor` of the page before */
                readonly cursor?: string;
                /** @description items a page; 100 when absent */
                readonly limit?: number;
                /** @description see docs/operating.md */
                readonly kind?: string;
                readonly severity?: "info" | "warning" | "error";
                readonly subject?: string;
                /** @description RFC 3339: from then on */
                readonly since?: string;
            };
            readonly header?: never;
            readonly path?: never;
            readonly cookie?: never;
        };
        readonly requestBody?: never;
        readonly responses: {
            /** @description Default Response */
            readonly 200: {
                headers: {
                    readonly [name: string]: unknown;
                };
                content: {
                    readonly "application/json": components["schemas"]["EventPage"];
                };
            };
        };
    };
    readonly followEvents: {
        readonly parameters: {
            readonly query?: {
                /** @description see docs/operating.md */
                readonly kind?: string;
                readonly severity?: "info" | "warning" | "error";
                readonly subject?: string;
                readonly after?: number;
            };
            readonly header?: {
                readonly "last-event-id"?: number;
            };
            readonly path?: never;
            readonly cookie?: never;
        };
        readonly requestBody?: never;
        readonly responses: {
            /** @description Events */
            readonly 200: {
                headers: {
                    readonly [name: string]: unknown;
                };
                content: {
                    readonly "text/event-stream": string;
                };
            };
        };
    };
    readonly collectGarbage: {
        readonly parameters: {
            readonly query?: never;
            readonly header?: {
                /** @description The same key with the same request gets the same answer and makes nothing twice */
                readonly "idempotency-key"?: string;
            };
            readonly path?: never;
            readonly cookie?: never;
        };
        readonly requestBody: {
            readonly content: {
                readonly "application/json": {
                    /** @description free also what is dead in segments of which more than three quarters are alive; rewrites what is alive in them */
                    readonly thorough?: boolean;
                };
            };
        };
        readonly responses: {
            /** @description The job */
            readonly 202: {
                headers: {
                    /** @description where the result, or the job, is found */
                    readonly Location?: string;
                    readonly [name: string]: unknown;
                };
                content: {
                    readonly "application/json": components["schemas"]["Job"];
                };
            };
        };
    };
    readonly apiHealth: {
        readonly parameters: {
            readonly query?: never;
            readonly header?: never;
            readonly path?: never;
            readonly cookie?: never;
        };
        readonly requestBody?: never;
        readonly responses: {
            /** @description Default Response */
            readonly 200: {
                headers: {
                    readonly [name: string]: unknown;
                };
                content: {
                    readonly "application/json": components["schemas"]["Health"];
                };
            };
        };
    };
    readonly importVm: {
        readonly parameters: {
            readonly query?: {
                /** @description of the new VM; with `since` of the new backup (the time) */
                readonly name?: string;
                /** @description the disk: of the new VM (disk0), or with `since` the one that is imported, where there are several */
                readonly disk?: string;
                /** @description a backup, by id or as `vm@name`: the result is the next backup of its VM, and `name` that of the backup */
                readonly since?: string;
                /** @description of the new VM; several times for several tags */
                readonly tag?: string | readonly string[];
                /** @description size of the disk, where Content-Length does not say it */
                readonly sizeBytes?: number;
            };
            readonly header?: {
                /** @description The same key with the same request gets the same answer and makes nothing twice */
                readonly "idempotency-key"?: string;
            };
            readonly path?: never;
            readonly cookie?: never;
        };
        readonly requestBody: {
            readonly content: {
                readonly "application/json": {
                    /** @description the disk: of the new VM (disk0), or with `since` the one that is imported, where there are several */
                    readonly disk?: string;
                    /** @description of the file; recognised by its content where it is not said */
                    readonly format?: "raw" | "qcow2" | "vmdk" | "vdi" | "vhdx" | "vpc";
                    /** @description of the new VM; with `since` of the new backup (the time) */
                    readonly name?: string;
                    /** @description a file inside the import directory of the server */
                    readonly path: string;
                    /** @description a backup, by id or as `vm@name`: the result is the next backup of its VM, and `name` that of the backup */
                    readonly since?: string;
                    /** @description of the new VM */
                    readonly tags?: readonly string[];
                    /** @description read the file again before the result exists, and compare */
                    readonly verify?: boolean;
                };
                readonly "application/octet-stream": unknown;
                readonly "application/vnd.pando.sparse": unknown;
                readonly "application/vnd.pando.sparse-ids": unknown;
            };
        };
        readonly responses: {
            /** @description The upload is a VM, or a backup, now */
            readonly 201: {
                headers: {
                    /** @description where the result, or the job, is found */
                    readonly Location?: string;
                    readonly [name: string]: unknown;
                };
                content: {
                    readonly "application/json": {
                        readonly jobId: string;
                        readonly result: components["schemas"]["ImportResult"] | components["schemas"]["BackupImportResult"];
                    };
                };
            };
            /** @description The job */
            readonly 202: {
                headers: {
                    /** @description where the result, or the job, is found */
                    readonly Location?: string;
                    readonly [name: string]: unknown;
                };
                content: {
                    readonly "application/json": components["schemas"]["Job"];
                };
            };
        };
    };
    readonly listJobs: {
        readonly parameters: {
            readonly query?: {
                /** @description `nextCursor` of the page before */
                readonly cursor?: string;
                /** @description items a page; 100 when absent */
                readonly limit?: number;
            };
            readonly header?: never;
            readonly path?: never;
            readonly cookie?: never;
        };
        readonly requestBody?: never;
        readonly responses: {
            /** @description Default Response */
            readonly 200: {
                headers: {
                    readonly [name: string]: unknown;
                };
                content: {
                    readonly "application/json": components["schemas"]["JobPage"];
                };
            };
        };
    };
    readonly getJob: {
        readonly parameters: {
            readonly query?: never;
            readonly header?: never;
            readonly path: {
                readonly id: string;
            };
            readonly cookie?: never;
        };
        readonly requestBody?: never;
        readonly responses: {
            /** @description Default Response */
            readonly 200: {
                headers: {
                    readonly [name: string]: unknown;
                };
                content: {
                    readonly "application/json": components["schemas"]["Job"];
                };
            };
        };
    };
    readonly cancelJob: {
        readonly parameters: {
            readonly query?: never;
            readonly header?: never;
            readonly path: {
                readonly id: string;
            };
            readonly cookie?: never;
        };
        readonly requestBody?: never;
        readonly responses: {
            /** @description Default Response */
            readonly 200: {
                headers: {
                    readonly [name: string]: unknown;
                };
                content: {
                    readonly "application/json": components["schemas"]["Job"];
                };
            };
        };
    };
    readonly followJob: {
        readonly parameters: {
            readonly query?: never;
            readonly header?: never;
            readonly path: {
                readonly id: string;
            };
            readonly cookie?: never;
        };
        readonly requestBody?: never;
        readonly responses: {
            /** @description Events */
            readonly 200: {
                headers: {
                    readonly [name: string]: unknown;
                };
                content: {
                    readonly "text/event-stream": string;
                };
            };
        };
    };
    readonly apiMetrics: {
        readonly parameters: {
            readonly query?: never;
            readonly header?: never;
            readonly path?: never;
            readonly cookie?: never;
        };
        readonly requestBody?: never;
        readonly responses: {
            /** @description One sample a line */
            readonly 200: {
                headers: {
                    readonly [name: string]: unknown;
                };
                content: {
                    readonly "text/plain": string;
                };
            };
        };
    };
    readonly listPolicies: {
        readonly parameters: {
            readonly query?: {
                /** @description `nextCursor` of the page before */
                readonly cursor?: string;
                /** @description items a page; 100 when absent */
                readonly limit?: number;
            };
            readonly header?: never;
            readonly path?: never;
            readonly cookie?: never;
        };
        readonly requestBody?: never;
        readonly responses: {
            /** @description Default Response */
            readonly 200: {
                headers: {
                    readonly [name: string]: unknown;
                };
                content: {
                    readonly "application/json": components["schemas"]["PolicyPage"];
                };
            };
        };
    };
    readonly createPolicy: {
        readonly parameters: {
            readonly query?: never;
            readonly header?: {
                /** @description The same key with the same request gets the same answer and makes nothing twice */
                readonly "idempotency-key"?: string;
            };
            readonly path?: never;
            readonly cookie?: never;
        };
        readonly requestBody: {
            readonly content: {
                readonly "application/json": {
                    /** @description 1 to 255 bytes of UTF-8 without `/`, `@` and control characters */
                    readonly name: string;
                    readonly note?: string;
                    /** @description freeze the file systems of each guest around the instant: `qemu-ga:PATH`, in which `{vm}` stands for the name of the VM; empty: not any more */
                    readonly quiesce?: string;
                    readonly rules: readonly {
                        /** @description 1 to 255 bytes of UTF-8 without `/`, `@` and control characters */
                        readonly name?: string;
                        /** @description Kept is what one of them keeps, in the time zone of the schedule; with none of them, everything */
                        readonly retention: {
                            /** @description so many of the newest, however old; 1 when absent */
                            readonly keepAtLeast?: number;
                            /** @description likewise of days */
                            readonly keepDaily?: number;
                            /** @description those that are younger */
                            readonly keepForMinutes?: number;
                            /** @description the newest of each of the last so many hours that have any */
                            readonly keepHourly?: number;
                            /** @description so many of the newest */
                            readonly keepLast?: number;
                            /** @description of months */
                            readonly keepMonthly?: number;
                            /** @description of weeks (ISO 8601) */
                            readonly keepWeekly?: number;
                            /** @description of years */
                            readonly keepYearly?: number;
                        };
                        readonly schedule: {
                            /** @description times of the day; this or `everyMinutes` */
                            readonly at?: readonly string[];
                            /** @description every so many days, counted from 1970-01-01; goes with no other days */
                            readonly everyDays?: number;
                            /** @description from `from` on, every so many minutes until before `to`; at most 1,440 */
                            readonly everyMinutes?: number;
                            /** @description HH:MM */
                            readonly from?: string;
                            readonly monthDays?: readonly (number | "last")[];
                            /** @description IANA name, such as Europe/Berlin or UTC */
                            readonly timeZone: string;
                            /** @description HH:MM, up to 24:00; not after `from`: on the next day */
                            readonly to?: string;
                            readonly weekdays?: readonly ("mon" | "tue" | "wed" | "thu" | "fri" | "sat" | "sun")[];
                        };
                    }[];
                    readonly tags?: readonly string[];
                };
            };
        };
        readonly responses: {
            /** @description The new policy */
            readonly 201: {
                headers: {
                    /** @description where the result, or the job, is found */
                    readonly Location?: string;
                    readonly [name: string]: unknown;
                };
                content: {
                    readonly "application/json": components["schemas"]["Policy"];
                };
            };
        };
    };
    readonly getPolicy: {
        readonly parameters: {
            readonly query?: never;
            readonly header?: never;
            readonly path: {
                readonly policy: string;
            };
            readonly cookie?: never;
        };
        readonly requestBody?: never;
        readonly responses: {
            /** @description Default Response */
            readonly 200: {
                headers: {
                    readonly [name: string]: unknown;
                };
                content: {
                    readonly "application/json": components["schemas"]["Policy"];
                };
            };
        };
    };
    readonly deletePolicy: {
        readonly parameters: {
            readonly query?: never;
            readonly header?: never;
            readonly path: {
                readonly policy: string;
            };
            readonly cookie?: never;
        };
        readonly requestBody?: never;
        readonly responses: {
            /** @description Done */
            readonly 204: {
                headers: {
                    readonly [name: string]: unknown;
                };
                content?: never;
            };
        };
    };
    readonly changePolicy: {
        readonly parameters: {
            readonly query?: never;
            readonly header?: never;
            readonly path: {
                readonly policy: string;
            };
            readonly cookie?: never;
        };
        readonly requestBody: {
            readonly content: {
                readonly "application/json": {
                    /** @description 1 to 255 bytes of UTF-8 without `/`, `@` and control characters */
                    readonly name?: string;
                    readonly note?: string;
                    /** @description freeze the file systems of each guest around the instant: `qemu-ga:PATH`, in which `{vm}` stands for the name of the VM; empty: not any more */
                    readonly quiesce?: string;
                    readonly rules?: readonly {
                        /** @description 1 to 255 bytes of UTF-8 without `/`, `@` and control characters */
                        readonly name?: string;
                        /** @description Kept is what one of them keeps, in the time zone of the schedule; with none of them, everything */
                        readonly retention: {
                            /** @description so many of the newest, however old; 1 when absent */
                            readonly keepAtLeast?: number;
                            /** @description likewise of days */
                            readonly keepDaily?: number;
                            /** @description those that are younger */
                            readonly keepForMinutes?: number;
                            /** @description the newest of each of the last so many hours that have any */
                            readonly keepHourly?: number;
                            /** @description so many of the newest */
                            readonly keepLast?: number;
                            /** @description of months */
                            readonly keepMonthly?: number;
                            /** @description of weeks (ISO 8601) */
                            readonly keepWeekly?: number;
                            /** @description of years */
                            readonly keepYearly?: number;
                        };
                        readonly schedule: {
                            /** @description times of the day; this or `everyMinutes` */
                            readonly at?: readonly string[];
                            /** @description every so many days, counted from 1970-01-01; goes with no other days */
                            readonly everyDays?: number;
                            /** @description from `from` on, every so many minutes until before `to`; at most 1,440 */
                            readonly everyMinutes?: number;
                            /** @description HH:MM */
                            readonly from?: string;
                            readonly monthDays?: readonly (number | "last")[];
                            /** @description IANA name, such as Europe/Berlin or UTC */
                            readonly timeZone: string;
                            /** @description HH:MM, up to 24:00; not after `from`: on the next day */
                            readonly to?: string;
                            readonly weekdays?: readonly ("mon" | "tue" | "wed" | "thu" | "fri" | "sat" | "sun")[];
                        };
                    }[];
                };
            };
        };
        readonly responses: {
            /** @description Default Response */
            readonly 200: {
                headers: {
                    readonly [name: string]: unknown;
                };
                content: {
                    readonly "application/json": components["schemas"]["Policy"];
                };
            };
        };
    };
    readonly assignPolicy: {
        readonly parameters: {
            readonly query?: never;
            readonly header?: never;
            readonly path: {
                readonly policy: string;
            };
            readonly cookie?: never;
        };
        readonly requestBody: {
            readonly content: {
                readonly "application/json": {
                    readonly tags?: readonly string[];
                    /** @description names or ids */
                    readonly vms?: readonly string[];
                };
            };
        };
        readonly responses: {
            /** @description Default Response */
            readonly 200: {
                headers: {
                    readonly [name: string]: unknown;
                };
                content: {
                    readonly "application/json": components["schemas"]["Policy"];
                };
            };
        };
    };
    readonly listPolicyFailures: {
        readonly parameters: {
            readonly query?: {
                /** @description `nextCursor` of the page before */
                readonly cursor?: string;
                /** @description items a page; 100 when absent */
                readonly limit?: number;
            };
            readonly header?: never;
            readonly path: {
                readonly policy: string;
            };
            readonly cookie?: never;
        };
        readonly requestBody?: never;
        readonly responses: {
            /** @description Default Response */
            readonly 200: {
                headers: {
                    readonly [name: string]: unknown;
                };
                content: {
                    readonly "application/json": components["schemas"]["PolicyFailurePage"];
                };
            };
        };
    };
    readonly resumePolicy: {
        readonly parameters: {
            readonly query?: never;
            readonly header?: never;
            readonly path: {
                readonly policy: string;
            };
            readonly cookie?: never;
        };
        readonly requestBody: {
            readonly content: {
                readonly "application/json": {
                    /** @description only for this VM; name or id */
                    readonly vm?: string;
                };
            };
        };
        readonly responses: {
            /** @description Default Response */
            readonly 200: {
                headers: {
                    readonly [name: string]: unknown;
                };
                content: {
                    readonly "application/json": components["schemas"]["Policy"];
                };
            };
        };
    };
    readonly runPolicy: {
        readonly parameters: {
            readonly query?: never;
            readonly header?: never;
            readonly path: {
                readonly policy: string;
            };
            readonly cookie?: never;
        };
        readonly requestBody: {
            readonly content: {
                readonly "application/json": {
                    /** @description 1 to 255 bytes of UTF-8 without `/`, `@` and control characters */
                    readonly rule?: string;
                    /** @description only of this VM; name or id */
                    readonly vm?: string;
                };
            };
        };
        readonly responses: {
            /** @description Default Response */
            readonly 200: {
                headers: {
                    readonly [name: string]: unknown;
                };
                content: {
                    readonly "application/json": components["schemas"]["Policy"];
                };
            };
        };
    };
    readonly suspendPolicy: {
        readonly parameters: {
            readonly query?: never;
            readonly header?: never;
            readonly path: {
                readonly policy: string;
            };
            readonly cookie?: never;
        };
        readonly requestBody: {
            readonly content: {
                readonly "application/json": {
                    /** @description only for this VM; name or id */
                    readonly vm?: string;
                };
            };
        };
        readonly responses: {
            /** @description Default Response */
            readonly 200: {
                headers: {
                    readonly [name: string]: unknown;
                };
                content: {
                    readonly "application/json": components["schemas"]["Policy"];
                };
            };
        };
    };
    readonly unassignPolicy: {
        readonly parameters: {
            readonly query?: never;
            readonly header?: never;
            readonly path: {
                readonly policy: string;
            };
            readonly cookie?: never;
        };
        readonly requestBody: {
            readonly content: {
                readonly "application/json": {
                    readonly tags?: readonly string[];
                    /** @description names or ids */
                    readonly vms?: readonly string[];
                };
            };
        };
        readonly responses: {
            /** @description Default Response */
            readonly 200: {
                headers: {
                    readonly [name: string]: unknown;
                };
                content: {
                    readonly "application/json": components["schemas"]["Policy"];
                };
            };
        };
    };
    readonly listPolicyVms: {
        readonly parameters: {
            readonly query?: {
                /** @description `nextCursor` of the page before */
                readonly cursor?: string;
                /** @description items a page; 100 when absent */
                readonly limit?: number;
            };
            readonly header?: never;
            readonly path: {
                readonly policy: string;
            };
            readonly cookie?: never;
        };
        readonly requestBody?: never;
        readonly responses: {
            /** @description Default Response */
            readonly 200: {
                headers: {
                    readonly [name: string]: unknown;
                };
                content: {
                    readonly "application/json": components["schemas"]["AssignedVmPage"];
                };
            };
        };
    };
    readonly reportPolicyImpact: {
        readonly parameters: {
            readonly query?: never;
            readonly header?: never;
            readonly path?: never;
            readonly cookie?: never;
        };
        readonly requestBody: {
            readonly content: {
                readonly "application/json": {
                    /** @description `nextCursor` of the page before */
                    readonly cursor?: string;
                    /** @description 30 when absent */
                    readonly horizonDays?: number;
                    /** @description VMs a page; 20 when absent */
                    readonly limit?: number;
                    /** @description name or id */
                    readonly policy?: string;
                    readonly rules?: readonly {
                        /** @description 1 to 255 bytes of UTF-8 without `/`, `@` and control characters */
                        readonly name?: string;
                        /** @description Kept is what one of them keeps, in the time zone of the schedule; with none of them, everything */
                        readonly retention: {
                            /** @description so many of the newest, however old; 1 when absent */
                            readonly keepAtLeast?: number;
                            /** @description likewise of days */
                            readonly keepDaily?: number;
                            /** @description those that are younger */
                            readonly keepForMinutes?: number;
                            /** @description the newest of each of the last so many hours that have any */
                            readonly keepHourly?: number;
                            /** @description so many of the newest */
                            readonly keepLast?: number;
                            /** @description of months */
                            readonly keepMonthly?: number;
                            /** @description of weeks (ISO 8601) */
                            readonly keepWeekly?: number;
                            /** @description of years */
                            readonly keepYearly?: number;
                        };
                        readonly schedule: {
                            /** @description times of the day; this or `everyMinutes` */
                            readonly at?: readonly string[];
                            /** @description every so many days, counted from 1970-01-01; goes with no other days */
                            readonly everyDays?: number;
                            /** @description from `from` on, every so many minutes until before `to`; at most 1,440 */
                            readonly everyMinutes?: number;
                            /** @description HH:MM */
                            readonly from?: string;
                            readonly monthDays?: readonly (number | "last")[];
                            /** @description IANA name, such as Europe/Berlin or UTC */
                            readonly timeZone: string;
                            /** @description HH:MM, up to 24:00; not after `from`: on the next day */
                            readonly to?: string;
                            readonly weekdays?: readonly ("mon" | "tue" | "wed" | "thu" | "fri" | "sat" | "sun")[];
                        };
                    }[];
                    readonly tags?: readonly string[];
                    /** @description names or ids */
                    readonly vms?: readonly string[];
                };
            };
        };
        readonly responses: {
            /** @description Default Response */
            readonly 200: {
                headers: {
                    readonly [name: string]: unknown;
                };
                content: {
                    readonly "application/json": components["schemas"]["VmImpactPage"];
                };
            };
        };
    };
    readonly listDueRuns: {
        readonly parameters: {
            readonly query?: {
                /** @description `nextCursor` of the page before */
                readonly cursor?: string;
                /** @description items a page; 100 when absent */
                readonly limit?: number;
            };
            readonly header?: never;
            readonly path?: never;
            readonly cookie?: never;
        };
        readonly requestBody?: never;
        readonly responses: {
            /** @description Default Response */
            readonly 200: {
                headers: {
                    readonly [name: string]: unknown;
                };
                content: {
                    readonly "application/json": components["schemas"]["DueRunPage"];
                };
            };
        };
    };
    readonly apiReady: {
        readonly parameters: {
            readonly query?: never;
            readonly header?: never;
            readonly path?: never;
            readonly cookie?: never;
        };
        readonly requestBody?: never;
        readonly responses: {
            /** @description Default Response */
            readonly 200: {
                headers: {
                    readonly [name: string]: unknown;
                };
                content: {
                    readonly "application/json": components["schemas"]["Ready"];
                };
            };
        };
    };
    readonly repair: {
        readonly parameters: {
            readonly query?: {
                /** @description size of the source, where Content-Length does not say it */
                readonly sizeBytes?: number;
            };
            readonly header?: {
                /** @description The same key with the same request gets the same answer and makes nothing twice */
                readonly "idempotency-key"?: string;
            };
            readonly path?: never;
            readonly cookie?: never;
        };
        readonly requestBody: {
            readonly content: {
                readonly "application/json": {
                    /** @description of the file; recognised by its content where it is not said */
                    readonly format?: "raw" | "qcow2" | "vmdk" | "vdi" | "vhdx" | "vpc";
                    /** @description a file inside the import directory of the server, an image of any format, or a directory there: the data directory of a store */
                    readonly path: string;
                };
                readonly "application/octet-stream": unknown;
                readonly "application/vnd.pando.sparse": unknown;
            };
        };
        readonly responses: {
            /** @description The upload has been looked through */
            readonly 200: {
                headers: {
                    readonly [name: string]: unknown;
                };
                content: {
                    readonly "application/json": {
                        readonly jobId: string;
                        readonly result: components["schemas"]["RepairReport"];
                    };
                };
            };
            /** @description The job */
            readonly 202: {
                headers: {
                    /** @description where the result, or the job, is found */
                    readonly Location?: string;
                    readonly [name: string]: unknown;
                };
                content: {
                    readonly "application/json": components["schemas"]["Job"];
                };
            };
        };
    };
    readonly reportAccounts: {
        readonly parameters: {
            readonly query?: {
                /** @description `nextCursor` of the page before */
                readonly cursor?: string;
                /** @description items a page; 100 when absent */
                readonly limit?: number;
                readonly by?: "vm" | "tag" | "policy";
            };
            readonly header?: never;
            readonly path?: never;
            readonly cookie?: never;
        };
        readonly requestBody?: never;
        readonly responses: {
            /** @description Default Response */
            readonly 200: {
                headers: {
                    readonly [name: string]: unknown;
                };
                content: {
                    readonly "application/json": components["schemas"]["AccountsPage"];
                };
            };
        };
    };
    readonly reportHolders: {
        readonly parameters: {
            readonly query: {
                /** @description `nextCursor` of the page before */
                readonly cursor?: string;
                /** @description items a page; 100 when absent */
                readonly limit?: number;
                readonly of: string;
            };
            readonly header?: never;
            readonly path?: never;
            readonly cookie?: never;
        };
        readonly requestBody?: never;
        readonly responses: {
            /** @description Default Response */
            readonly 200: {
                headers: {
                    readonly [name: string]: unknown;
                };
                content: {
                    readonly "application/json": components["schemas"]["HoldersPage"];
                };
            };
        };
    };
    readonly reportReclaim: {
        readonly parameters: {
            readonly query?: never;
            readonly header?: never;
            readonly path?: never;
            readonly cookie?: never;
        };
        readonly requestBody: {
            readonly content: {
                readonly "application/json": {
                    /** @description `nextCursor` of the page before */
                    readonly cursor?: string;
                    readonly kind?: "vm" | "backup";
                    /** @description items a page; 100 when absent */
                    readonly limit?: number;
                    /** @description VMs and backups, by id or name */
                    readonly owners?: readonly string[];
                    /** @description those whose names begin so */
                    readonly prefix?: string;
                    /** @description those that carry it */
                    readonly tag?: string;
                    /** @description the backups of the VMs, too */
                    readonly withBackups?: boolean;
                };
            };
        };
        readonly responses: {
            /** @description Default Response */
            readonly 200: {
                headers: {
                    readonly [name: string]: unknown;
                };
                content: {
                    readonly "application/json": components["schemas"]["ReclaimReport"];
                };
            };
        };
    };
    readonly planReclaim: {
        readonly parameters: {
            readonly query?: never;
            readonly header?: never;
            readonly path?: never;
            readonly cookie?: never;
        };
        readonly requestBody: {
            readonly content: {
                readonly "application/json": {
                    /** @description how much to free */
                    readonly bytes: number;
                    /** @description `nextCursor` of the page before */
                    readonly cursor?: string;
                    /** @description VMs without clients may go, too */
                    readonly includeVms?: boolean;
                    /** @description items a page; 100 when absent */
                    readonly limit?: number;
                    /** @description the oldest that are enough (when absent), or as few as can be found; `isFewest` says whether these are the fewest */
                    readonly prefer?: "oldest" | "smallest";
                    /** @description those whose names begin so */
                    readonly prefix?: string;
                    /** @description those that carry it */
                    readonly tag?: string;
                };
            };
        };
        readonly responses: {
            /** @description Default Response */
            readonly 200: {
                headers: {
                    readonly [name: string]: unknown;
                };
                content: {
                    readonly "application/json": components["schemas"]["ReclaimPlan"];
                };
            };
        };
    };
    readonly reportSpace: {
        readonly parameters: {
            readonly query?: never;
            readonly header?: never;
            readonly path?: never;
            readonly cookie?: never;
        };
        readonly requestBody?: never;
        readonly responses: {
            /** @description Default Response */
            readonly 200: {
                headers: {
                    readonly [name: string]: unknown;
                };
                content: {
                    readonly "application/json": components["schemas"]["SpaceReport"];
                };
            };
        };
    };
    readonly spaceHistory: {
        readonly parameters: {
            readonly query?: {
                /** @description `nextCursor` of the page before */
                readonly cursor?: string;
                /** @description items a page; 100 when absent */
                readonly limit?: number;
                readonly grain?: "5m" | "1h" | "1d";
                /** @description RFC 3339; a month ago when absent */
                readonly since?: string;
            };
            readonly header?: never;
            readonly path?: never;
            readonly cookie?: never;
        };
        readonly requestBody?: never;
        readonly responses: {
            /** @description Default Response */
            readonly 200: {
                headers: {
                    readonly [name: string]: unknown;
                };
                content: {
                    readonly "application/json": components["schemas"]["SpaceHistory"];
                };
            };
        };
    };
    readonly reportOwners: {
        readonly parameters: {
            readonly query?: {
                /** @description `nextCursor` of the page before */
                readonly cursor?: string;
                /** @description items a page; 100 when absent */
                readonly limit?: number;
                readonly kind?: "vm" | "backup";
            };
            readonly header?: never;
            readonly path?: never;
            readonly cookie?: never;
        };
        readonly requestBody?: never;
        readonly responses: {
            /** @description Default Response */
            readonly 200: {
                headers: {
                    readonly [name: string]: unknown;
                };
                content: {
                    readonly "application/json": components["schemas"]["OwnerSpacePage"];
                };
            };
        };
    };
    readonly listTokens: {
        readonly parameters: {
            readonly query?: {
                /** @description `nextCursor` of the page before */
                readonly cursor?: string;
                /** @description items a page; 100 when absent */
                readonly limit?: number;
            };
            readonly header?: never;
            readonly path?: never;
            readonly cookie?: never;
        };
        readonly requestBody?: never;
        readonly responses: {
            /** @description Default Response */
            readonly 200: {
                headers: {
                    readonly [name: string]: unknown;
                };
                content: {
                    readonly "application/json": components["schemas"]["TokenPage"];
                };
            };
        };
    };
    readonly createToken: {
        readonly parameters: {
            readonly query?: never;
            readonly header?: never;
            readonly path?: never;
            readonly cookie?: never;
        };
        readonly requestBody: {
            readonly content: {
                readonly "application/json": {
                    /** @description RFC 3339; absent: never */
                    readonly expiresAt?: string;
                    /** @description 1 to 255 bytes of UTF-8 without `/`, `@` and control characters */
                    readonly name: string;
                    /** @description viewer: look; operator: also change, and read disks; admin: also tokens and the audit trail */
                    readonly role: "viewer" | "operator" | "admin";
                    /** @description VMs whose name fits or that carry a tag, and their backups; absent: everything */
                    readonly scope?: {
                        /** @description VMs that carry one of these tags */
                        readonly tags?: readonly string[];
                        /** @description names of VMs, in which `*` stands for any characters */
                        readonly vms?: readonly string[];
                    };
                };
            };
        };
        readonly responses: {
            /** @description The new token */
            readonly 201: {
                headers: {
                    /** @description where the result, or the job, is found */
                    readonly Location?: string;
                    readonly [name: string]: unknown;
                };
                content: {
                    readonly "application/json": components["schemas"]["CreatedToken"];
                };
            };
        };
    };
    readonly getToken: {
        readonly parameters: {
            readonly query?: never;
            readonly header?: never;
            readonly path: {
                readonly token: string;
            };
            readonly cookie?: never;
        };
        readonly requestBody?: never;
        readonly responses: {
            /** @description Default Response */
            readonly 200: {
                headers: {
                    readonly [name: string]: unknown;
                };
                content: {
                    readonly "application/json": components["schemas"]["Token"];
                };
            };
        };
    };
    readonly revokeToken: {
        readonly parameters: {
            readonly query?: never;
            readonly header?: never;
            readonly path: {
                readonly token: string;
            };
            readonly cookie?: never;
        };
        readonly requestBody?: never;
        readonly responses: {
            /** @description Done */
            readonly 204: {
                headers: {
                    readonly [name: string]: unknown;
                };
                content?: never;
            };
        };
    };
    readonly verify: {
        readonly parameters: {
            readonly query?: never;
            readonly header?: {
                /** @description The same key with the same request gets the same answer and makes nothing twice */
                readonly "idempotency-key"?: string;
            };
            readonly path?: never;
            readonly cookie?: never;
        };
        readonly requestBody: {
            readonly content: {
                readonly "application/json": {
                    /** @description structure only: headers and footers of segments, and that everything that disks refer to is in the index and in a segment; no chunk is hashed */
                    readonly quick?: boolean;
                    /** @description go on where the last full verification was cut off, when there is one (`unfinished` of GET /verify/last); from the start otherwise */
                    readonly resume?: boolean;
                };
            };
        };
        readonly responses: {
            /** @description The job */
            readonly 202: {
                headers: {
                    /** @description where the result, or the job, is found */
                    readonly Location?: string;
                    readonly [name: string]: unknown;
                };
                content: {
                    readonly "application/json": components["schemas"]["Job"];
                };
            };
        };
    };
    readonly lastVerifications: {
        readonly parameters: {
            readonly query?: never;
            readonly header?: never;
            readonly path?: never;
            readonly cookie?: never;
        };
        readonly requestBody?: never;
        readonly responses: {
            /** @description those that ran to their end, and a full one that is under way or was cut off */
            readonly 200: {
                headers: {
                    readonly [name: string]: unknown;
                };
                content: {
                    readonly "application/json": components["schemas"]["LastVerifications"];
                };
            };
        };
    };
    readonly listVms: {
        readonly parameters: {
            readonly query?: {
                /** @description `nextCursor` of the page before */
                readonly cursor?: string;
                /** @description items a page; 100 when absent */
                readonly limit?: number;
                /** @description only names that begin so */
                readonly prefix?: string;
                /** @description only VMs that carry this tag */
                readonly tag?: string;
            };
            readonly header?: never;
            readonly path?: never;
            readonly cookie?: never;
        };
        readonly requestBody?: never;
        readonly responses: {
            /** @description Default Response */
            readonly 200: {
                headers: {
                    readonly [name: string]: unknown;
                };
                content: {
                    readonly "application/json": components["schemas"]["VmPage"];
                };
            };
        };
    };
    readonly createVm: {
        readonly parameters: {
            readonly query?: never;
            readonly header?: {
                /** @description The same key with the same request gets the same answer and makes nothing twice */
                readonly "idempotency-key"?: string;
            };
            readonly path?: never;
            readonly cookie?: never;
        };
        readonly requestBody: {
            readonly content: {
                readonly "application/json": {
                    readonly disks: readonly {
                        /** @description 1 to 255 bytes of UTF-8 without `/`, `@` and control characters */
                        readonly name: string;
                        readonly sizeBytes: number;
                    }[];
                    /** @description 1 to 255 bytes of UTF-8 without `/`, `@` and control characters */
                    readonly name: string;
                    /** @description what a VM is grouped by, for policies, tokens and reports: names */
                    readonly tags?: readonly string[];
                };
            };
        };
        readonly responses: {
            /** @description The new VM */
            readonly 201: {
                headers: {
                    /** @description where the result, or the job, is found */
                    readonly Location?: string;
                    readonly [name: string]: unknown;
                };
                content: {
                    readonly "application/json": components["schemas"]["Vm"];
                };
            };
        };
    };
    readonly getVm: {
        readonly parameters: {
            readonly query?: never;
            readonly header?: never;
            readonly path: {
                readonly vm: string;
            };
            readonly cookie?: never;
        };
        readonly requestBody?: never;
        readonly responses: {
            /** @description Default Response */
            readonly 200: {
                headers: {
                    readonly [name: string]: unknown;
                };
                content: {
                    readonly "application/json": components["schemas"]["Vm"];
                };
            };
        };
    };
    readonly deleteVm: {
        readonly parameters: {
            readonly query?: {
                /** @description disconnect clients first */
                readonly force?: boolean;
            };
            readonly header?: never;
            readonly path: {
                readonly vm: string;
            };
            readonly cookie?: never;
        };
        readonly requestBody?: never;
        readonly responses: {
            /** @description Done */
            readonly 204: {
                headers: {
                    readonly [name: string]: unknown;
                };
                content?: never;
            };
        };
    };
    readonly changeVm: {
        readonly parameters: {
            readonly query?: never;
            readonly header?: never;
            readonly path: {
                readonly vm: string;
            };
            readonly cookie?: never;
        };
        readonly requestBody: {
            readonly content: {
                readonly "application/json": {
                    readonly disk?: {
                        /** @description disconnect clients first */
                        readonly force?: boolean;
                        /** @description 1 to 255 bytes of UTF-8 without `/`, `@` and control characters */
                        readonly name: string;
                        readonly shrink?: boolean;
                        readonly sizeBytes: number;
                    };
                    /** @description 1 to 255 bytes of UTF-8 without `/`, `@` and control characters */
                    readonly name?: string;
                    /** @description what a VM is grouped by, for policies, tokens and reports: names */
                    readonly tags?: readonly string[];
                };
            };
        };
        readonly responses: {
            /** @description Default Response */
            readonly 200: {
                headers: {
                    readonly [name: string]: unknown;
                };
                content: {
                    readonly "application/json": components["schemas"]["Vm"];
                };
            };
        };
    };
    readonly listActivity: {
        readonly parameters: {
            readonly query?: {
                /** @description `nextCursor` of the page before */
                readonly cursor?: string;
                /** @description items a page; 100 when absent */
                readonly limit?: number;
                /** @description five minutes of the last day, hours of the last 30 days, or days of the last year */
                readonly grain?: "5m" | "1h" | "1d";
            };
            readonly header?: never;
            readonly path: {
                readonly vm: string;
            };
            readonly cookie?: never;
        };
        readonly requestBody?: never;
        readonly responses: {
            /** @description Default Response */
            readonly 200: {
                headers: {
                    readonly [name: string]: unknown;
                };
                content: {
                    readonly "application/json": components["schemas"]["ActivityPage"];
                };
            };
        };
    };
    readonly createBackup: {
        readonly parameters: {
            readonly query?: never;
            readonly header?: {
                /** @description The same key with the same request gets the same answer and makes nothing twice */
                readonly "idempotency-key"?: string;
            };
            readonly path: {
                readonly vm: string;
            };
            readonly cookie?: never;
        };
        readonly requestBody: {
            readonly content: {
                readonly "application/json": {
                    readonly expiresAt?: string | "never";
                    /** @description names of 1 to 63 of A-Z a-z 0-9 . _ / -, values of at most 255 bytes */
                    readonly labels?: {
                        readonly [key: string]: string;
                    };
                    /**
                     * Format: date-time
                     * @description RFC 3339
                     */
                    readonly lockedUntil?: string;
                    /** @description 1 to 255 bytes of UTF-8 without `/`, `@` and control characters */
                    readonly name?: string;
                    /** @description at most 4,096 bytes */
                    readonly note?: string;
                    /** @description freeze the file systems of the guest around the instant: `qemu-ga:PATH`, the Unix socket of its guest agent on the server, inside its `--guest-agent-dir`; `{vm}` in it stands for the name of the VM */
                    readonly quiesce?: string;
                    /** @description how long the guest may be frozen at most; there is no backup if that is not enough */
                    readonly quiesceSeconds?: number;
                };
            };
        };
        readonly responses: {
            /** @description The new backup */
            readonly 201: {
                headers: {
                    /** @description where the result, or the job, is found */
                    readonly Location?: string;
                    readonly [name: string]: unknown;
                };
                content: {
                    readonly "application/json": components["schemas"]["Backup"];
                };
            };
        };
    };
    readonly cloneVm: {
        readonly parameters: {
            readonly query?: never;
            readonly header?: {
                /** @description The same key with the same request gets the same answer and makes nothing twice */
                readonly "idempotency-key"?: string;
            };
            readonly path: {
                readonly vm: string;
            };
            readonly cookie?: never;
        };
        readonly requestBody: {
            readonly content: {
                readonly "application/json": {
                    readonly count?: number;
                    /** @description 1 to 255 bytes of UTF-8 without `/`, `@` and control characters */
                    readonly name: string;
                    /** @description what a VM is grouped by, for policies, tokens and reports: names */
                    readonly tags?: readonly string[];
                };
            };
        };
        readonly responses: {
            /** @description Default Response */
            readonly 201: {
                headers: {
                    readonly [name: string]: unknown;
                };
                content: {
                    readonly "application/json": components["schemas"]["Vms"];
                };
            };
        };
    };
    readonly readVmDisk: {
        readonly parameters: {
            readonly query?: never;
            readonly header?: never;
            readonly path: {
                readonly vm: string;
                readonly disk: string;
            };
            readonly cookie?: never;
        };
        readonly requestBody?: never;
        readonly responses: {
            /** @description The disk */
            readonly 200: {
                headers: {
                    readonly "Accept-Ranges"?: string;
                    readonly "Content-Range"?: string;
                    readonly ETag?: string;
                    /** @description bytes of a chunk, which the root depends on */
                    readonly "Pando-Chunk-Bytes"?: string;
                    /** @description of a disk of a backup: id of its top node, 64 hex digits; what the whole disk hashes to */
                    readonly "Pando-Root"?: string;
                    /** @description `true` when a secret of the store is in the root; else it is absent */
                    readonly "Pando-Root-Keyed"?: string;
                    readonly [name: string]: unknown;
                };
                content: {
                    readonly "application/octet-stream": unknown;
                    readonly "application/vnd.pando.sparse": unknown;
                };
            };
            /** @description A range of the disk */
            readonly 206: {
                headers: {
                    readonly "Accept-Ranges"?: string;
                    readonly "Content-Range"?: string;
                    readonly ETag?: string;
                    /** @description bytes of a chunk, which the root depends on */
                    readonly "Pando-Chunk-Bytes"?: string;
                    /** @description of a disk of a backup: id of its top node, 64 hex digits; what the whole disk hashes to */
                    readonly "Pando-Root"?: string;
                    /** @description `true` when a secret of the store is in the root; else it is absent */
                    readonly "Pando-Root-Keyed"?: string;
                    readonly [name: string]: unknown;
                };
                content: {
                    readonly "application/octet-stream": unknown;
                    readonly "application/vnd.pando.sparse": unknown;
                };
            };
        };
    };
    readonly measureVmDisk: {
        readonly parameters: {
            readonly query?: never;
            readonly header?: never;
            readonly path: {
                readonly vm: string;
                readonly disk: string;
            };
            readonly cookie?: never;
        };
        readonly requestBody?: never;
        readonly responses: {
            /** @description The disk */
            readonly 200: {
                headers: {
                    readonly "Accept-Ranges"?: string;
                    readonly "Content-Range"?: string;
                    readonly ETag?: string;
                    /** @description bytes of a chunk, which the root depends on */
                    readonly "Pando-Chunk-Bytes"?: string;
                    /** @description of a disk of a backup: id of its top node, 64 hex digits; what the whole disk hashes to */
                    readonly "Pando-Root"?: string;
                    /** @description `true` when a secret of the store is in the root; else it is absent */
                    readonly "Pando-Root-Keyed"?: string;
                    readonly [name: string]: unknown;
                };
                content: {
                    readonly "application/octet-stream": unknown;
                    readonly "application/vnd.pando.sparse": unknown;
                };
            };
            /** @description A range of the disk */
            readonly 206: {
                headers: {
                    readonly "Accept-Ranges"?: string;
                    readonly "Content-Range"?: string;
                    readonly ETag?: string;
                    /** @description bytes of a chunk, which the root depends on */
                    readonly "Pando-Chunk-Bytes"?: string;
                    /** @description of a disk of a backup: id of its top node, 64 hex digits; what the whole disk hashes to */
                    readonly "Pando-Root"?: string;
                    /** @description `true` when a secret of the store is in the root; else it is absent */
                    readonly "Pando-Root-Keyed"?: string;
                    readonly [name: string]: unknown;
                };
                content: {
                    readonly "application/octet-stream": unknown;
                    readonly "application/vnd.pando.sparse": unknown;
                };
            };
        };
    };
    readonly mapVmDisk: {
        readonly parameters: {
            readonly query?: {
                /** @description `nextCursor` of the page before */
                readonly cursor?: string;
                /** @description items a page; 100 when absent */
                readonly limit?: number;
            };
            readonly header?: never;
            readonly path: {
                readonly vm: string;
                readonly disk: string;
            };
            readonly cookie?: never;
        };
        readonly requestBody?: never;
        readonly responses: {
            /** @description Default Response */
            readonly 200: {
                headers: {
                    readonly [name: string]: unknown;
                };
                content: {
                    readonly "application/json": components["schemas"]["DiskMap"];
                };
            };
        };
    };
    readonly listPoliciesOfVm: {
        readonly parameters: {
            readonly query?: never;
            readonly header?: never;
            readonly path: {
                readonly vm: string;
            };
            readonly cookie?: never;
        };
        readonly requestBody?: never;
        readonly responses: {
            /** @description Default Response */
            readonly 200: {
                headers: {
                    readonly [name: string]: unknown;
                };
                content: {
                    readonly "application/json": components["schemas"]["PoliciesOfVm"];
                };
            };
        };
    };
    readonly rootsOfVm: {
        readonly parameters: {
            readonly query?: never;
            readonly header?: never;
            readonly path: {
                readonly vm: string;
            };
            readonly cookie?: never;
        };
        readonly requestBody?: never;
        readonly responses: {
            /** @description Default Response */
            readonly 200: {
                headers: {
                    readonly [name: string]: unknown;
                };
                content: {
                    readonly "application/json": components["schemas"]["DiskRoots"];
                };
            };
        };
    };
    readonly getTripwire: {
        readonly parameters: {
            readonly query?: never;
            readonly header?: never;
            readonly path: {
                readonly vm: string;
            };
            readonly cookie?: never;
        };
        readonly requestBody?: never;
        readonly responses: {
            /** @description Default Response */
            readonly 200: {
                headers: {
                    readonly [name: string]: unknown;
                };
                content: {
                    readonly "application/json": components["schemas"]["Tripwire"];
                };
            };
        };
    };
    readonly setTripwire: {
        readonly parameters: {
            readonly query?: never;
            readonly header?: never;
            readonly path: {
                readonly vm: string;
            };
            readonly cookie?: never;
        };
        readonly requestBody: {
            readonly content: {
                readonly "application/json": {
                    /** @description how little it takes; normal unless set */
                    readonly sensitivity: "off" | "low" | "normal" | "high";
                };
            };
        };
        readonly responses: {
            /** @description Default Response */
            readonly 200: {
                headers: {
                    readonly [name: string]: unknown;
                };
                content: {
                    readonly "application/json": components["schemas"]["Tripwire"];
                };
            };
        };
    };
    readonly listWebhooks: {
        readonly parameters: {
            readonly query?: never;
            readonly header?: never;
            readonly path?: never;
            readonly cookie?: never;
        };
        readonly requestBody?: never;
        readonly responses: {
            /** @description Default Response */
            readonly 200: {
                headers: {
                    readonly [name: string]: unknown;
                };
                content: {
                    readonly "application/json": components["schemas"]["WebhookList"];
                };
            };
        };
    };
    readonly createWebhook: {
        readonly parameters: {
            readonly query?: never;
            readonly header?: never;
            readonly path?: never;
            readonly cookie?: never;
        };
        readonly requestBody: {
            readonly content: {
                readonly "application/json": {
                    /** @description let the URL be http */
                    readonly insecure?: boolean;
                    /** @description only these; all when absent */
                    readonly kinds?: readonly string[];
                    readonly severity?: "info" | "warning" | "error";
                    /** @description https, unless `insecure` */
                    readonly url: string;
                };
            };
        };
        readonly responses: {
            /** @description Made */
            readonly 201: {
                headers: {
                    /** @description where the result, or the job, is found */
                    readonly Location?: string;
                    readonly [name: string]: unknown;
                };
                content: {
                    readonly "application/json": components["schemas"]["NewWebhook"];
                };
            };
        };
    };
    readonly getWebhook: {
        readonly parameters: {
            readonly query?: never;
            readonly header?: never;
            readonly path: {
                readonly id: string;
            };
            readonly cookie?: never;
        };
        readonly requestBody?: never;
        readonly responses: {
            /** @description Default Response */
            readonly 200: {
                headers: {
                    readonly [name: string]: unknown;
                };
                content: {
                    readonly "application/json": components["schemas"]["Webhook"];
                };
            };
        };
    };
    readonly deleteWebhook: {
        readonly parameters: {
            readonly query?: never;
            readonly header?: never;
            readonly path: {
                readonly id: string;
            };
            readonly cookie?: never;
        };
        readonly requestBody?: never;
        readonly responses: {
            /** @description Done */
            readonly 204: {
                headers: {
                    readonly [name: string]: unknown;
                };
                content?: never;
            };
        };
    };
    readonly testWebhook: {
        readonly parameters: {
            readonly query?: never;
            readonly header?: {
                /** @description The same key with the same request gets the same answer and makes nothing twice */
                readonly "idempotency-key"?: string;
            };
            readonly path: {
                readonly id: string;
            };
            readonly cookie?: never;
        };
        readonly requestBody?: never;
        readonly responses: {
            /** @description Default Response */
            readonly 200: {
                headers: {
                    readonly [name: string]: unknown;
                };
                content: {
                    readonly "application/json": components["schemas"]["WebhookTest"];
                };
            };
        };
    };
    readonly whoami: {
        readonly parameters: {
            readonly query?: never;
            readonly header?: never;
            readonly path?: never;
            readonly cookie?: never;
        };
        readonly requestBody?: never;
        readonly responses: {
            /** @description Default Response */
            readonly 200: {
                headers: {
                    readonly [name: string]: unknown;
                };
                content: {
                    readonly "application/json": components["schemas"]["Whoami"];
                };
            };
        };
    };
    readonly health: {
        readonly parameters: {
            readonly query?: never;
            readonly header?: never;
            readonly path?: never;
            readonly cookie?: never;
        };
        readonly requestBody?: never;
        readonly responses: {
            /** @description Default Response */
            readonly 200: {
                headers: {
                    readonly [name: string]: unknown;
                };
                content: {
                    readonly "application/json": components["schemas"]["Health"];
                };
            };
        };
    };
    readonly metrics: {
        readonly parameters: {
            readonly query?: never;
            readonly header?: never;
            readonly path?: never;
            readonly cookie?: never;
        };
        readonly requestBody?: never;
        readonly responses: {
            /** @description One sample a line */
            readonly 200: {
                headers: {
                    readonly [name: string]: unknown;
                };
                content: {
                    readonly "text/plain": string;
                };
            };
        };
    };
    readonly ready: {
        readonly parameters: {
            readonly query?: never;
            readonly header?: never;
            readonly path?: never;
            readonly cookie?: never;
        };
        readonly requestBody?: never;
        readonly responses: {
            /** @description Default Response */
            readonly 200: {
                headers: {
                    readonly [name: string]: unknown;
                };
                content: {
                    readonly "application/json": components["schemas"]["Ready"];
                };
            };
        };
    };
}

export type AccountLine = components['schemas']['AccountLine'];
export type AccountTotals = components['schemas']['AccountTotals'];
export type AccountsPage = components['schemas']['AccountsPage'];
export type ActivityBucket = components['schemas']['ActivityBucket'];
export type ActivityPage = components['schemas']['ActivityPage'];
export type AssignedVm = components['schemas']['AssignedVm'];
export type AssignedVmPage = components['schemas']['AssignedVmPage'];
export type AuditEntry = components['schemas']['AuditEntry'];
export type AuditPage = components['schemas']['AuditPage'];
export type Backup = components['schemas']['Backup'];
export type BackupChange = components['schemas']['BackupChange'];
export type BackupImportResult = components['schemas']['BackupImportResult'];
export type BackupPage = components['schemas']['BackupPage'];
export type BackupPolicy = components['schemas']['BackupPolicy'];
export type CreatedToken = components['schemas']['CreatedToken'];
export type DamagedDisk = components['schemas']['DamagedDisk'];
export type DiffItem = components['schemas']['DiffItem'];
export type DiffPage = components['schemas']['DiffPage'];
export type DiffSide = components['schemas']['DiffSide'];
export type Disk = components['schemas']['Disk'];
export type DiskMap = components['schemas']['DiskMap'];
export type DiskRoots = components['schemas']['DiskRoots'];
export type DueRun = components['schemas']['DueRun'];
export type DueRunPage = components['schemas']['DueRunPage'];
export type Event = components['schemas']['Event'];
export type EventPage = components['schemas']['EventPage'];
export type Extent = components['schemas']['Extent'];
export type GcReport = components['schemas']['GcReport'];
export type GcRequest = components['schemas']['GcRequest'];
export type GuestFile = components['schemas']['GuestFile'];
export type GuestFilePage = components['schemas']['GuestFilePage'];
export type GuestFileSystem = components['schemas']['GuestFileSystem'];
export type GuestFileSystems = components['schemas']['GuestFileSystems'];
export type GuestMount = components['schemas']['GuestMount'];
export type GuestSystem = components['schemas']['GuestSystem'];
export type Health = components['schemas']['Health'];
export type HeldBackups = components['schemas']['HeldBackups'];
export type Holder = components['schemas']['Holder'];
export type HoldersPage = components['schemas']['HoldersPage'];
export type ImportResult = components['schemas']['ImportResult'];
export type Job = components['schemas']['Job'];
export type JobError = components['schemas']['JobError'];
export type JobPage = components['schemas']['JobPage'];
export type LastVerification = components['schemas']['LastVerification'];
export type LastVerifications = components['schemas']['LastVerifications'];
export type NamedRoot = components['schemas']['NamedRoot'];
export type NewToken = components['schemas']['NewToken'];
export type NewWebhook = components['schemas']['NewWebhook'];
export type OwnerName = components['schemas']['OwnerName'];
export type OwnerSpace = components['schemas']['OwnerSpace'];
export type OwnerSpacePage = components['schemas']['OwnerSpacePage'];
export type PoliciesOfVm = components['schemas']['PoliciesOfVm'];
export type Policy = components['schemas']['Policy'];
export type PolicyFailure = components['schemas']['PolicyFailure'];
export type PolicyFailurePage = components['schemas']['PolicyFailurePage'];
export type PolicyOfVm = components['schemas']['PolicyOfVm'];
export type PolicyPage = components['schemas']['PolicyPage'];
export type PolicyRule = components['schemas']['PolicyRule'];
export type PolicyRun = components['schemas']['PolicyRun'];
export type Problem = components['schemas']['Problem'];
export type Progress = components['schemas']['Progress'];
export type Ready = components['schemas']['Ready'];
export type ReadyCheck = components['schemas']['ReadyCheck'];
export type ReclaimPlan = components['schemas']['ReclaimPlan'];
export type ReclaimPlanRequest = components['schemas']['ReclaimPlanRequest'];
export type ReclaimReport = components['schemas']['ReclaimReport'];
export type ReclaimRequest = components['schemas']['ReclaimRequest'];
export type Reclaimable = components['schemas']['Reclaimable'];
export type RepairReport = components['schemas']['RepairReport'];
export type Retention = components['schemas']['Retention'];
export type Schedule = components['schemas']['Schedule'];
export type Scope = components['schemas']['Scope'];
export type SpaceHistory = components['schemas']['SpaceHistory'];
export type SpaceRatios = components['schemas']['SpaceRatios'];
export type SpaceReport = components['schemas']['SpaceReport'];
export type SpaceSample = components['schemas']['SpaceSample'];
export type StayingWith = components['schemas']['StayingWith'];
export type Token = components['schemas']['Token'];
export type TokenPage = components['schemas']['TokenPage'];
export type Tripwire = components['schemas']['Tripwire'];
export type TripwireTrip = components['schemas']['TripwireTrip'];
export type UnfinishedVerification = components['schemas']['UnfinishedVerification'];
export type VerifyReport = components['schemas']['VerifyReport'];
export type VerifyRequest = components['schemas']['VerifyRequest'];
export type Vm = components['schemas']['Vm'];
export type VmImpact = components['schemas']['VmImpact'];
export type VmImpactPage = components['schemas']['VmImpactPage'];
export type VmPage = components['schemas']['VmPage'];
export type Vms = components['schemas']['Vms'];
export type Webhook = components['schemas']['Webhook'];
export type WebhookList = components['schemas']['WebhookList'];
export type WebhookTest = components['schemas']['WebhookTest'];
export type Whoami = components['schemas']['Whoami'];

/** What the jobs end with that operations begin. */
export interface JobResults {
  readonly 'collectGarbage': components['schemas']['GcReport'];
  readonly 'importVm': components['schemas']['ImportResult'] | components['schemas']['BackupImportResult'];
  readonly 'repair': components['schemas']['RepairReport'];
  readonly 'restoreBackup': components['schemas']['Vm'];
  readonly 'verify': components['schemas']['VerifyReport'];
}

/** The events that operations stream. */
export interface StreamedEvents {
  readonly 'followEvents': components['schemas']['Event'];
  readonly 'followJob': components['schemas']['Job'];
}
