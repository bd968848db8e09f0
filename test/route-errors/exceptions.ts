/**
 * Where the call graph is wrong, with the reason. What has become needless fails the test, so that nothing stays here that hides something one day.
 * Patterns fit names of the call graph.
 */

/** An error that does not come out of `from` when it uses `to`. */
export interface NotTaken {
  /** Default: whoever uses it. */
  readonly from?: RegExp;
  readonly to: RegExp;
  /** Default: all. */
  readonly codes?: readonly string[];
  readonly why: string;
}

/** `from` waits for what `to` does elsewhere, and throws what that has thrown. */
export interface AlsoTaken {
  readonly from: RegExp;
  readonly to: RegExp;
  readonly why: string;
}

/** What an operation is not answered with, although others are that share its handler. */
export interface NeverAnswered {
  readonly operation: RegExp;
  readonly codes: readonly string[];
  readonly why: string;
}

export const NOT_TAKEN: readonly NotTaken[] = [
  {
    from: /^catalog\/level-database\.ts##reopen$/,
    to: /##open$/,
    codes: ['store-locked'],
    why: 'nobody else opens the catalog: the data directory has a lock of its own',
  },
  {
    to: /^nbd\/client\//,
    why: 'the server is a client of the sandboxes of images alone; what goes wrong there becomes image-damaged (connectTo, imageParts)',
  },
  {
    to: /^(block-device\/range|tree\/(builder|read|update))\.ts#/,
    codes: ['range-invalid'],
    why: 'ranges inside the server come from the sizes of its own disks; those of requests are looked at by the routes',
  },
  {
    to: /^volume\/volumes\.ts##(checkThere|recordOf)$/,
    codes: ['disk-missing'],
    why: 'whoever uses a disk holds its VM or backup, and so nobody removes it',
  },
  {
    from: /^fleet\/attach\.ts#open$/,
    to: /^fleet\/contexts\.ts#contextsOf$/,
    why: 'contexts are opened, and asked, over NBD',
  },
  {
    from: /^policies\/expire\.ts#listAll$|^api\/policy-scopes\.ts#look$/,
    to: /^fleet\/fleet\.ts#list(Backups|Vms)$/,
    codes: ['cursor-invalid'],
    why: 'it goes on with the cursor that it was given',
  },
  {
    from: /^api\/policy-scopes\.ts#look$|^policies\/targets\.ts#targetPage$/,
    to: /^fleet\/fleet\.ts#listVms$/,
    codes: ['name-invalid'],
    why: 'tags of policies were looked at when they were assigned, those of scopes are by the caller',
  },
  {
    from: /^policies\/take-backup\.ts#take$/,
    to: /^fleet\/fleet\.ts#createBackup$/,
    codes: ['name-invalid', 'name-taken', 'clock-set-back'],
    why: 'a policy gives no name, no lock and no date: the name is made of the time, and of the id where that is taken',
  },
  {
    from: /^policies\/own\.ts#runForVm$/,
    to: /^policies\/take-backup\.ts#takeBackup$/,
    codes: [
      ...['guest-agent-refused', 'guest-agent-gone', 'guest-agent-failed', 'guest-frozen'],
      'quiesce-timeout',
    ],
    why: 'then the backup is taken without the guest (isAboutGuest), unless undoing failed: and that is the error',
  },
  {
    from: /^guest-agent\/quiescer\.ts#quiesced$/,
    to: /^guest-agent\/quiescer\.ts##quiesced$/,
    codes: ['cancelled'],
    why: 'its signal is aborted when the server stops: shutting-down',
  },
  {
    from: /^guest-files\/appliance\.ts#/,
    to: /^nbd\//,
    why: 'that is told to the appliance, over NBD: it makes files-tool-failed of it',
  },
  {
    to: /^guest-files\/appliance\.ts#Appliance$/,
    codes: ['export-missing'],
    why: 'that is told to the appliance, over NBD',
  },
  {
    from: /^apps\/server\/guest-files\.ts#open$/,
    to: /^fleet\/fleet\.ts#attach$/,
    codes: ['disk-missing'],
    why: 'disks are named as the backup has them, and a backup never has others',
  },
  {
    from: /^guest-files\/guest-files\.ts#release$/,
    to: /./,
    why: 'it waits until appliances have ended; what goes wrong with that is told elsewhere',
  },
  {
    from: /^api\/plugins\/files\.ts#placeOf$/,
    to: /#fromBase64$/,
    codes: ['cursor-invalid'],
    why: 'it is asked about a path',
  },
  {
    from: /^api\/plugins\/jobs\.ts#/,
    to: /^api\/jobs\.ts#cancel$/,
    codes: ['cancelled'],
    why: 'that is what the job ends with',
  },
  {
    from: /^api\/plugins\/idempotency\.ts#/,
    to: /^api\/plugins\/content\.ts#handler$/,
    why: 'that is one of the handlers that it stands before, and has its own list',
  },
  {
    from: /^gc\/sweep\.ts#sweep$/,
    to: /./,
    codes: ['segment-corrupt', 'chunk-corrupt', 'chunk-missing'],
    why: 'a segment that cannot be read stays, and is counted (unlessDamaged)',
  },
];

export const ALSO_TAKEN: readonly AlsoTaken[] = [
  {
    from: /^volume\/destage\.ts#settle$/,
    to: /^volume\/destage\.ts##(destage|record)$/,
    why: 'it waits for destaging, which rejects whoever waits',
  },
];

export const NEVER_ANSWERED: readonly NeverAnswered[] = [
  {
    operation: /^((read|measure|map)VmDisk|rootsOfVm)$/,
    codes: ['backup-missing'],
    why: 'by its id alone, what is gone is taken for a VM',
  },
];
