/** What a VM writes over time, and the tripwire on it. */
import { Type } from '@fastify/type-provider-typebox';
import { GRAINS, type Bucket, type Trip, type Tripwire as State } from '@pando/activity';
import { PandoError } from '@pando/common';
import type { ApiContext, App } from '../context.ts';
import {
  ActivityPage,
  Grain,
  PAGE_ITEMS_DEFAULT,
  PageQuery,
  problems,
  ref,
  Reference,
  Sensitivity,
  Tripwire,
  type ActivityBucket,
  type Tripwire as TripwireView,
} from '../schemas/index.ts';

const VmParams = Type.Object({ vm: Reference });

export function activityRoutes(app: App, { fleet, activity }: ApiContext): void {
  const tags = ['vms'];

  app.get(
    '/vms/:vm/activity',
    {
      config: { needs: { role: 'viewer', on: 'vm' } },
      schema: {
        operationId: 'listActivity',
        summary: 'What a VM has written over time, and what came of it',
        tags,
        params: VmParams,
        querystring: Type.Object(
          { ...PageQuery, grain: Type.Optional(Grain) },
          { additionalProperties: false },
        ),
        response: { 200: ref(ActivityPage), ...problems },
      },
    },
    async ({ params, query }) => {
      const { id } = await fleet.getVm(params.vm);
      const { grain = '1h', limit = PAGE_ITEMS_DEFAULT, cursor } = query;
      const before = cursor === undefined ? {} : { before: startIn(cursor) };
      const { items, isMore } = await activity.buckets(id, grain, { limit, ...before });
      const next = isMore ? { nextCursor: String(items.at(-1)!.start) } : {};
      return { items: items.map((bucket) => viewOf(bucket, GRAINS[grain].ms)), ...next };
    },
  );

  app.get(
    '/vms/:vm/tripwire',
    {
      config: { needs: { role: 'viewer', on: 'vm' } },
      schema: {
        operationId: 'getTripwire',
        summary: 'What the tripwire knows of a VM, and when it tripped last',
        tags,
        params: VmParams,
        response: { 200: ref(Tripwire), ...problems },
      },
    },
    async ({ params }) => tripwireView(await activity.tripwire((await fleet.getVm(params.vm)).id)),
  );

  app.put(
    '/vms/:vm/tripwire',
    {
      config: { needs: { role: 'operator', on: 'vm' } },
      schema: {
        operationId: 'setTripwire',
        summary: 'Say how sensitive the tripwire of a VM is',
        tags,
        params: VmParams,
        body: Type.Object({ sensitivity: Sensitivity }, { additionalProperties: false }),
        response: { 200: ref(Tripwire), ...problems },
      },
    },
    async ({ params, body }) => {
      const { id } = await fleet.getVm(params.vm);
      await activity.setSensitivity(id, body.sensitivity);
      return tripwireView(await activity.tripwire(id));
    },
  );
}

function startIn(cursor: string): number {
  const start = Number(cursor);
  if (!/^\d{1,15}$/.test(cursor) || !Number.isSafeInteger(start)) {
    throw new PandoError('cursor-invalid', 'the cursor is not one of this list');
  }
  return start;
}

function viewOf({ start, peakRawBytes: _, ...amounts }: Bucket, ms: number): ActivityBucket {
  return { start: instant(start), seconds: ms / 1000, ...amounts };
}

function tripwireView({ sensitivity, state, usualShare, limits, readyAt, trip }: State): TripwireView {
  return {
    ...{ sensitivity, state, usualShare },
    ...(readyAt === undefined ? {} : { readyAt: instant(readyAt) }),
    hourLimitBytes: Math.round(limits.hour),
    dayLimitBytes: Math.round(limits.day),
    ...(trip === undefined ? {} : { trip: tripView(trip) }),
  };
}

function tripView({ at, seenAt, since, lockedUntil, ...trip }: Trip): NonNullable<TripwireView['trip']> {
  return {
    ...trip,
    ...{ at: instant(at), since: instant(since), lastSeenAt: instant(seenAt) },
    limitBytes: Math.round(trip.limitBytes),
    ...(lockedUntil === undefined ? {} : { lockedUntil: instant(lockedUntil) }),
  };
}

function instant(ms: number): string {
  return new Date(ms).toISOString();
}
