/** What is allowed in a policy. */
import { PandoError } from '@pando/common';
import { checkName } from '@pando/fleet';
import { POLICY_NOTE_BYTES_MAX, POLICY_TAGS_MAX, QUIESCE_CHARACTERS_MAX, RULES_MAX } from './limits.ts';
import { checkRetention } from './retention.ts';
import { checkSchedule } from './schedule.ts';
import type { PolicyRequest, Rule } from './types.ts';

/** @throws `request-invalid`, `name-invalid` */
export function checkRules(given: PolicyRequest['rules']): readonly Rule[] {
  if (given.length < 1 || given.length > RULES_MAX) {
    throw new PandoError('request-invalid', `a policy has 1 to ${RULES_MAX} rules, not ${given.length}`);
  }
  const rules = given.map(({ name, schedule, retention }, i) => ({
    name: checkName('rule', name ?? `rule-${i + 1}`),
    schedule: checkSchedule(schedule),
    retention: checkRetention(retention),
  }));
  if (new Set(rules.map(({ name }) => name)).size < rules.length) {
    throw new PandoError('request-invalid', 'two rules of a policy cannot have the same name');
  }
  return rules;
}

/** Sorted, each once. @throws `request-invalid`, `name-invalid` */
export function checkPolicyTags(given: readonly string[]): readonly string[] {
  const tags = [...new Set(given.map((tag) => checkName('tag', tag)))].sort();
  if (tags.length > POLICY_TAGS_MAX) {
    throw new PandoError(
      'request-invalid',
      `a policy has at most ${POLICY_TAGS_MAX} tags, not ${tags.length}`,
    );
  }
  return tags;
}

/** The guest agent of each VM, see `Quiesce`; undefined for none. @throws `request-invalid` */
export function checkQuiesce(guest: string | undefined): string | undefined {
  if (guest === undefined || guest === '') return undefined;
  if (!guest.startsWith('qemu-ga:/') || !guest.includes('{vm}') || guest.length > QUIESCE_CHARACTERS_MAX) {
    throw new PandoError(
      'request-invalid',
      'quiesce is qemu-ga: and an absolute path in which {vm} stands for the name of the VM',
    );
  }
  return guest;
}

/** Undefined for none. @throws `request-invalid` */
export function checkNote(note: string | undefined): string | undefined {
  if (note === undefined || note === '') return undefined;
  if (!note.isWellFormed() || note.includes('\u0000') || Buffer.byteLength(note) > POLICY_NOTE_BYTES_MAX) {
    throw new PandoError('request-invalid', `a note is text of at most ${POLICY_NOTE_BYTES_MAX} bytes`);
  }
  return note;
}
