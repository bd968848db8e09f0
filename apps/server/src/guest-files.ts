/** Files out of backups, as the server wires them: backups are opened as NBD clients open them, and can be deleted when nobody reads. */
import type { Clock } from '@pando/common';
import type { OpenFleet } from '@pando/fleet';
import { openGuestFiles, type GuestFiles } from '@pando/guest-files';
import type { Logger } from 'pino';

const APPLIANCES_DEFAULT = 2;

export function openFilesOf(
  fleet: OpenFleet,
  options: {
    readonly appliances: number | undefined;
    readonly storeId: string;
    readonly clock: Clock;
    readonly logger: Logger;
  },
): Promise<GuestFiles> {
  const { appliances = APPLIANCES_DEFAULT, storeId, clock, logger } = options;
  return openGuestFiles({
    ...{ clock, storeId },
    open: (backupId, disk) => fleet.attach(`${backupId}/${disk}`),
    limits: { appliancesMax: appliances },
    onTrouble: (error) => logger.warn({ err: error }, 'an appliance for files had trouble'),
  });
}

/** The fleet, whose backups are not kept from being deleted by an appliance that nobody asks anything. */
export function releasing(fleet: OpenFleet, files: GuestFiles): OpenFleet {
  const release = async (reference: string): Promise<void> => {
    // One that is not there is for the deletion to say.
    const found = await fleet.getBackup(reference).catch(() => undefined);
    if (found !== undefined) await files.release(found.id);
  };
  return {
    ...fleet,
    deleteBackup: async (reference) => {
      await release(reference);
      return fleet.deleteBackup(reference);
    },
    expireBackup: async (reference) => {
      await release(reference);
      return fleet.expireBackup(reference);
    },
  };
}
