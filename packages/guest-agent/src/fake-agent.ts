/** A guest agent for tests: the protocol as QEMU's speaks it, over a pair of streams, and the ways in which a guest may break it. */
import { duplexPair, type Duplex } from 'node:stream';

export class FakeGuest {
  /** File systems that a freeze finds. */
  fileSystems = 2;
  frozen = false;
  /** Commands in the order in which they came. */
  readonly commands: string[] = [];
  /** What comes out first on a new connection: left over from somebody else. */
  stale: Buffer = Buffer.alloc(0);
  /** Answers a command itself: bytes, or undefined to say nothing. Not set: as an honest agent. */
  answer: ((command: string) => Buffer | undefined | 'honest') | undefined;

  connect(): Duplex {
    const [client, agent] = duplexPair();
    let text = '';
    if (this.stale.byteLength > 0) agent.write(this.stale);
    agent.on('data', (bytes: Buffer) => {
      text += bytes.toString('latin1');
      for (;;) {
        const end = text.indexOf('\n');
        if (end < 0) return;
        const line = text.slice(0, end).replaceAll('\u00ff', '');
        text = text.slice(end + 1);
        this.#command(agent, JSON.parse(line) as { execute: string; arguments?: { id: number } });
      }
    });
    agent.on('error', () => undefined);
    return client;
  }

  #command(agent: Duplex, request: { execute: string; arguments?: { id: number } }): void {
    this.commands.push(request.execute);
    const given = this.answer?.(request.execute) ?? (this.answer === undefined ? 'honest' : undefined);
    if (given === undefined) return;
    if (given !== 'honest') agent.write(given);
    else if (request.execute === 'guest-sync-delimited') {
      agent.write(Buffer.concat([Buffer.from([0xff]), line({ return: request.arguments!.id })]));
    } else agent.write(line({ return: this.#honest(request.execute) }));
  }

  #honest(command: string): unknown {
    const was = this.frozen;
    switch (command) {
      case 'guest-fsfreeze-freeze':
        this.frozen = this.fileSystems > 0;
        return this.fileSystems;
      case 'guest-fsfreeze-thaw':
        this.frozen = false;
        return was ? this.fileSystems : 0;
      case 'guest-fsfreeze-status':
        return this.frozen ? 'frozen' : 'thawed';
      default:
        throw new Error(`nobody asked for ${command}`);
    }
  }
}

export function line(value: unknown): Buffer {
  return Buffer.from(`${JSON.stringify(value)}\n`);
}
