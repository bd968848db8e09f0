/** What a VM writes over time, and the tripwire on it. */
import { Type, type Static } from '@fastify/type-provider-typebox';
import { list, ref } from './common.ts';

const Instant = Type.String({ description: 'RFC 3339, UTC' });

const about = (description: string) => Type.Integer({ minimum: 0, description });

export const Grain = Type.Union([Type.Literal('5m'), Type.Literal('1h'), Type.Literal('1d')], {
  description: 'five minutes of the last day, hours of the last 30 days, or days of the last year',
});

export const ActivityBucket = Type.Object(
  {
    start: Instant,
    seconds: Type.Integer({ description: 'how long it is; the newest has not ended yet' }),
    writtenBytes: about('bytes of the chunks that were destaged; the sum of the next three'),
    zeroBytes: about('those of them that were zeros'),
    knownBytes: about('those that were stored already'),
    newBytes: about('those that were not'),
    storedBytes: about('what the new ones came to, compressed'),
    rawBytes: about('new ones that compression could not make shorter, as random bytes are'),
  },
  { $id: 'ActivityBucket', additionalProperties: false },
);
export type ActivityBucket = Static<typeof ActivityBucket>;

export const ActivityPage = Type.Object(
  {
    items: list(ref(ActivityBucket), {
      description: 'newest first, without those in which nothing was written',
    }),
    nextCursor: Type.Optional(Type.String({ description: 'absent on the last page' })),
  },
  { $id: 'ActivityPage', additionalProperties: false },
);

export const Sensitivity = Type.Union(
  [Type.Literal('off'), Type.Literal('low'), Type.Literal('normal'), Type.Literal('high')],
  { description: 'how little it takes; normal unless set' },
);

export const TripwireTrip = Type.Object(
  {
    at: Instant,
    since: Type.String({ description: 'RFC 3339, UTC: when what was seen began, as far as can be told' }),
    lastSeenAt: Type.String({ description: 'RFC 3339, UTC: to the hour' }),
    window: Type.Union([Type.Literal('hour'), Type.Literal('day')]),
    newBytes: about('bytes that were new in that window'),
    rawBytes: about('those of them that compression could not make shorter'),
    limitBytes: about('how many of those it took'),
    backup: Type.Optional(
      Type.Object(
        { id: Type.String(), name: Type.String() },
        { additionalProperties: false, description: 'the last one before that; absent: there was none' },
      ),
    ),
    lockedUntil: Type.Optional(Instant),
    notLocked: Type.Optional(
      Type.String({ description: 'code of the error that kept it from being locked; that is tried again' }),
    ),
  },
  { $id: 'TripwireTrip', additionalProperties: false },
);

export const Tripwire = Type.Object(
  {
    sensitivity: Sensitivity,
    state: Type.Union(
      [
        Type.Literal('off'),
        Type.Literal('learning'),
        Type.Literal('blind'),
        Type.Literal('quiet'),
        Type.Literal('jump'),
      ],
      {
        description:
          'learning: too little is known of the VM yet; blind: nearly all that it writes cannot be compressed anyway, so nothing would show; ' +
          'jump: what it writes now looks as if its disk were being encrypted',
      },
    ),
    readyAt: Type.Optional(Type.String({ description: 'RFC 3339, UTC: when it has learned enough' })),
    usualShare: Type.Number({
      description: 'share of the new bytes that compression cannot make shorter, on the median day',
    }),
    hourLimitBytes: about('bytes of that kind within an hour that it takes to trip'),
    dayLimitBytes: about('the same within a day'),
    trip: Type.Optional(ref(TripwireTrip)),
  },
  { $id: 'Tripwire', additionalProperties: false },
);
export type Tripwire = Static<typeof Tripwire>;
