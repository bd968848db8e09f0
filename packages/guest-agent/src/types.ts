/** What the rooms above ask of this one. */

/**
 * Runs an action while the guest of a VM is at rest. `guest` is `qemu-ga:` and the path of the socket of QEMU's guest agent, in which `{vm}` stands
 * for the name of the VM. `undo` takes back what the action did when the guest was not at rest until its end.
 * @throws `guest-agent-refused`, `guest-agent-gone`, `guest-agent-failed`, `guest-frozen`, `quiesce-timeout`, `too-busy`
 */
export type Quiesce = <T>(
  request: { readonly guest: string; readonly vm: string; readonly holdMs?: number },
  action: () => Promise<T>,
  undo: (result: T) => Promise<void>,
) => Promise<T>;
