/** Policies as users see them, and what the room needs of those below it. */
import type { Fleet, Page, PageRequest } from '@pando/fleet';
import type { Retention } from './retention.ts';
import type { Schedule } from './schedule.ts';

/** One schedule, and what of its backups stays. */
export interface Rule {
  /** Unique in the policy. */
  readonly name: string;
  readonly schedule: Schedule;
  readonly retention: Retention;
}

export interface RunInfo {
  /** When it was due; RFC 3339, as all times here. */
  readonly dueAt: string;
  readonly startedAt: string;
  /** Absent while it is under way. */
  readonly endedAt?: string;
  readonly backups: number;
  /** VMs without a backup at the end, or so far. */
  readonly failed: number;
  /** How often it went through the VMs. */
  readonly passes: number;
}

export interface RuleStatus extends Rule {
  /** Absent while the policy is suspended. */
  readonly nextRunAt?: string;
  readonly running?: RunInfo;
  readonly lastRun?: RunInfo;
}

export interface Policy {
  readonly id: string;
  readonly name: string;
  readonly note?: string;
  readonly quiesce?: string;
  readonly rules: readonly RuleStatus[];
  /** VMs with one of these tags are assigned. */
  readonly tags: readonly string[];
  readonly isSuspended: boolean;
  readonly createdAt: string;
  readonly changedAt: string;
}

export interface PolicyRequest {
  readonly name: string;
  readonly note?: string;
  /**
   * The guest agent of each VM, `qemu-ga:/run/guests/{vm}.sock`: its file systems are frozen around the instant. Where that cannot be, the
   * backup is taken all the same.
   */
  readonly quiesce?: string;
  readonly rules: readonly { name?: string; schedule: Schedule; retention: Retention }[];
  readonly tags?: readonly string[];
}

/** What is left out stays; an empty note or quiesce takes it away. */
export type PolicyChange = Partial<Omit<PolicyRequest, 'tags'>>;

export interface Targets {
  /** Names or ids. */
  readonly vms?: readonly string[];
  readonly tags?: readonly string[];
}

export interface AssignedVm {
  readonly id: string;
  readonly name: string;
  /** The tag that it is assigned by; absent: by name. */
  readonly tag?: string;
  readonly isSuspended: boolean;
}

export interface PolicyFailure {
  readonly vmId: string;
  readonly vmName: string;
  readonly rule: string;
  readonly dueAt: string;
  readonly at: string;
  readonly code: string;
  readonly detail: string;
}

export interface DueRun {
  readonly at: string;
  readonly policyId: string;
  readonly policy: string;
  readonly rule: string;
  readonly isRunning: boolean;
}

export interface PolicyOfVm {
  readonly id: string;
  readonly name: string;
  /** The tag that assigns it; absent: by name. */
  readonly tag?: string;
  /** The policy is, or it is for this VM. */
  readonly isSuspended: boolean;
}

/** What would be, for a policy that there is, with other rules if they are given, or for one that is none yet. */
export interface ImpactRequest extends Targets {
  /** Name or id; its backups count among those that there are, and its VMs are meant where none are named. */
  readonly policy?: string;
  readonly rules?: PolicyRequest['rules'];
  /** 30 when absent. */
  readonly horizonDays?: number;
}

/** Backups at one time. */
export interface HeldBackups {
  readonly backups: number;
  /** What they hold, compressed; absent: not known, for want of two backups to compare. */
  readonly bytes?: number;
}

export interface VmImpact {
  readonly vm: { readonly id: string; readonly name: string };
  /** Until the horizon. */
  readonly created: number;
  readonly expired: number;
  readonly now: HeldBackups;
  /** At the horizon. */
  readonly then: HeldBackups;
  /** In the long run; absent: ever more. */
  readonly steady?: HeldBackups;
}

export interface PolicyCounters {
  readonly runs: number;
  readonly backups: number;
  readonly failures: number;
  readonly expired: number;
}

export interface PolicyTrouble {
  /** How long the run that is due longest has waited to begin, or to go on. */
  readonly lagMs: number;
  /** Rules whose last run left VMs without a backup, or that wait to try some again. */
  readonly failingRules: number;
  /** The first of them; `vms`: how many at the least. */
  readonly failing: readonly { readonly policy: string; readonly rule: string; readonly vms: number }[];
}

/** Policies are named by id or name, VMs likewise. */
export interface Policies {
  /** @throws `name-taken`, `name-invalid`, `request-invalid` */
  create(request: PolicyRequest): Promise<Policy>;
  /** In the order of their creation. */
  list(request?: PageRequest): Promise<Page<Policy>>;
  /** @throws `policy-missing` */
  get(policy: string): Promise<Policy>;
  /** Rules are known by their names: one whose schedule changes begins anew, what a rule that is left out took stays. */
  change(policy: string, change: PolicyChange): Promise<Policy>;
  /** Its backups stay, and do not expire by it any more. */
  remove(policy: string): Promise<void>;
  assign(policy: string, targets: Targets): Promise<Policy>;
  /** What they have of its backups stays, and expires by it as before. */
  unassign(policy: string, targets: Targets): Promise<Policy>;
  /** VMs that are assigned, by name first, then tag by tag. */
  vms(policy: string, request?: PageRequest): Promise<Page<AssignedVm>>;
  /** Policies that a VM is under; a bounded number. */
  ofVm(vm: string): Promise<readonly PolicyOfVm[]>;
  /** Ids of the policies that one of these VMs is under, or that one of these tags assigns. */
  ofVms(
    vms: readonly { readonly id: string; readonly tags: readonly string[] }[],
    tags: readonly string[],
  ): Promise<ReadonlySet<string>>;
  /** Neither takes nor expires until it is resumed; with a VM, for that one takes nothing. */
  suspend(policy: string, vm?: string): Promise<Policy>;
  resume(policy: string, vm?: string): Promise<Policy>;
  /**
   * Begins a run now, of one rule or all; with a VM, takes the backups that such a run would take of it alone, and resolves when they are taken.
   * @throws `policy-busy` when it is suspended or such a run is under way
   */
  runNow(policy: string, rule?: string, vm?: string): Promise<Policy>;
  /** VMs whose last run failed. */
  failures(policy: string, request?: PageRequest): Promise<Page<PolicyFailure>>;
  /** What is due next, of all policies, soonest first. */
  due(request?: PageRequest): Promise<Page<DueRun>>;
  /** What a policy or a change of one brings about, VM by VM; nothing is changed. At most 100 a page. */
  impact(request: ImpactRequest & PageRequest): Promise<Page<VmImpact>>;
  readonly counters: PolicyCounters;
  /** How long the run that is due longest has waited to begin, in milliseconds. */
  dueLagMs(): Promise<number>;
  /** What is wrong with any of them; costs a read for each thousand rules. */
  trouble(): Promise<PolicyTrouble>;
}

/** What policies do with the fleet. */
export type PolicyFleet = Pick<
  Fleet,
  | 'changeHistory'
  | 'createBackup'
  | 'deleteBackup'
  | 'listBackups'
  | 'expireBackup'
  | 'listVms'
  | 'getVm'
  | 'trustedTime'
>;
