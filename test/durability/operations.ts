/**
 * The rows and columns of the table in docs/durability.md, and what each row does: one operation on a small fleet of which
 * everything is known.
 */
import { isPandoError } from '@pando/common';
import { between, fillRandom, seededRandom } from '@pando/common/testing';
import type { Attachment } from '@pando/fleet';
import { DiskModel } from '../simulation/disk-model.ts';
import type { Engine } from '../simulation/machine.ts';
import { momentsOf, type Disks, type Oracle, type Pending } from '../simulation/oracle.ts';

export const FAULTS = [
  'killed process',
  'power cut',
  'full disk',
  'bad sector',
  'failed sync',
  'second process',
  'clock that jumps',
] as const;

const DISK_BYTES = 96 * 1024;

export interface Story {
  readonly engine: Engine;
  readonly oracle: Oracle;
  /** Entered into the oracle around the call, so that whatever ends it leaves the oracle right. */
  change(operation: Pending, act: () => Promise<unknown>): Promise<void>;
}

export interface Operation {
  readonly name: string;
  run(story: Story): Promise<void>;
}

export function storyOf(engine: Engine, oracle: Oracle): Story {
  return {
    engine,
    oracle,
    async change(operation, act) {
      const id = oracle.begin(operation);
      try {
        await act();
      } catch (error) {
        // After a failed sync nobody knows. A refused growth may have happened too, as the model knows (`mayGrowTo`).
        if (!isPandoError(error, 'store-failed')) oracle.didNot(id);
        throw error;
      }
      oracle.happened(id);
    },
  };
}

function content(seed: number, length: number): Buffer {
  return Buffer.from(fillRandom(seededRandom(seed), new Uint8Array(length)));
}

async function attached(
  { engine, oracle }: Story,
  vm: string,
  use: (device: Attachment, model: DiskModel) => Promise<void>,
): Promise<void> {
  const device = await engine.fleet.attach(`${vm}/disk0`);
  try {
    await use(device, oracle.vms.get(vm)!.get('disk0')!.model);
  } finally {
    await device.close();
  }
}

async function write(device: Attachment, model: DiskModel, offset: number, data: Buffer): Promise<void> {
  const written = model.write(offset, data);
  await device.write(offset, data);
  model.acknowledge(written);
}

async function flush(device: Attachment, model: DiskModel): Promise<void> {
  const moment = model.moment();
  await device.flush();
  model.harden(moment);
}

async function createVm(story: Story, name: string): Promise<void> {
  const disks: Disks = new Map([['disk0', { listed: DISK_BYTES, model: new DiskModel(DISK_BYTES) }]]);
  await story.change({ kind: 'create', vms: [{ name, disks }] }, () =>
    story.engine.fleet.createVm({ name, disks: [{ name: 'disk0', sizeBytes: DISK_BYTES }] }),
  );
}

async function backUp(story: Story, vm: string, name: string): Promise<void> {
  const moments = momentsOf(story.oracle.vms.get(vm)!);
  await story.change({ kind: 'backup', vm, name, moments }, () =>
    story.engine.fleet.createBackup(vm, { name }),
  );
}

/**
 * What every operation begins with: `vm` with a backup, data in segments, garbage, and writes that are in the log only,
 * flushed and not; `other`, which is never touched; `gone`, to be deleted; all that can go into segments is there.
 */
export async function prepare(engine: Engine, oracle: Oracle, seed: number): Promise<void> {
  const story = storyOf(engine, oracle);
  const random = seededRandom(seed);
  for (const [i, vm] of ['vm', 'other', 'gone'].entries()) {
    await createVm(story, vm);
    await attached(story, vm, async (device, model) => {
      for (let n = 0; n < 5; n++)
        await write(device, model, between(random, 0, 60_000), content(seed + 10 * i + n, 9_000));
      await flush(device, model);
    });
  }
  await backUp(story, 'vm', 'before');
  await attached(story, 'vm', async (device, model) => {
    await write(device, model, 30_000, content(seed + 100, 20_000));
    await flush(device, model);
  });
  await engine.volumes.settleAll();
  await attached(story, 'vm', async (device, model) => {
    await write(device, model, 700, content(seed + 101, 9_000));
    await flush(device, model);
    await write(device, model, 50_001, content(seed + 102, 3_000));
  });
}

export const OPERATIONS: readonly Operation[] = [
  {
    name: 'write',
    run: (story) =>
      attached(story, 'vm', async (device, model) => {
        await write(device, model, 1_234, content(7, 13_000));
        await write(device, model, 64_000, Buffer.alloc(5_000));
      }),
  },
  {
    name: 'FLUSH, FUA',
    run: (story) =>
      attached(story, 'vm', async (device, model) => {
        await write(device, model, 20_480, content(8, 8_192));
        await flush(device, model);
        await write(device, model, 777, content(9, 100));
        await flush(device, model);
      }),
  },
  {
    name: 'clone',
    run: (story) => {
      const moments = momentsOf(story.oracle.vms.get('vm')!);
      return story.change({ kind: 'clone', vm: 'vm', names: ['c-1', 'c-2'], moments }, () =>
        story.engine.fleet.cloneVm('vm', { name: 'c', count: 2 }),
      );
    },
  },
  { name: 'backup', run: (story) => backUp(story, 'vm', 'after') },
  {
    name: 'restore',
    run: (story) =>
      story.change({ kind: 'restore', vm: 'vm', backup: 'vm@before' }, () =>
        story.engine.fleet.restoreBackup('vm@before'),
      ),
  },
  {
    name: 'delete',
    run: async (story) => {
      await story.change({ kind: 'deleteVm', vm: 'gone' }, () => story.engine.fleet.deleteVm('gone'));
      await story.change({ kind: 'deleteBackup', backup: 'vm@before' }, () =>
        story.engine.fleet.deleteBackup('vm@before'),
      );
    },
  },
  {
    name: 'gc',
    run: async (story) => {
      await story.change({ kind: 'deleteVm', vm: 'gone' }, () => story.engine.fleet.deleteVm('gone'));
      await story.engine.collect(true);
    },
  },
  {
    name: 'resize',
    run: async (story) => {
      for (const size of [DISK_BYTES + 50_176, 40_448]) {
        await story.change({ kind: 'resize', vm: 'vm', disk: 'disk0', size }, () =>
          story.engine.fleet.resizeDisk('vm', 'disk0', size, { shrink: true }),
        );
      }
    },
  },
];
