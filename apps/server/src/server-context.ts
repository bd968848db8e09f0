/** What every part of a server that is being started has. */
import type { Clock } from '@pando/common';
import type { Logger } from 'pino';
import type { CloseStack } from './close-stack.ts';
import type { Operations } from './operations.ts';
import type { ServeOptions } from './options.ts';

export interface ServerContext {
  readonly options: ServeOptions;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly operations: Operations;
  /** Whoever opens something pushes what closes it, at once. */
  readonly closing: CloseStack;
}
