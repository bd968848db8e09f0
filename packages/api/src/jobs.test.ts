import * as http from 'node:http';
import type { AddressInfo } from 'node:net';
import { PandoError, systemClock } from '@pando/common';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { Jobs, type JobWork } from './jobs.ts';
import type { GcReport, Job } from './schemas/index.ts';
import { GC_REPORT, VERIFY_REPORT, harness, until, type Harness } from './testing/harness.ts';

let at: Harness;
beforeEach(async () => {
  at = await harness({ limits: { followers: 1, heartbeatMs: 20 } });
});
afterEach(() => at.close());

const post = (path: string, payload: object = {}) =>
  at.app.inject({
    method: 'POST',
    url: `/api/v1${path}`,
    headers: { 'content-type': 'application/json' },
    payload,
  });
const get = (path: string) => at.app.inject(`/api/v1${path}`);

/** Work that waits to be told how it ends. */
function held(): {
  work: (work: JobWork) => Promise<GcReport>;
  given: Promise<JobWork>;
  finish: () => void;
  fail: (error: Error) => void;
} {
  const end = Promise.withResolvers<GcReport>();
  const given = Promise.withResolvers<JobWork>();
  return {
    given: given.promise,
    finish: () => end.resolve(GC_REPORT),
    fail: end.reject,
    work: (work) => {
      given.resolve(work);
      work.signal.addEventListener('abort', () => end.reject(new Error('stopped somehow')));
      return end.promise;
    },
  };
}

describe('gc and verify', () => {
  test.each([
    ['/gc', 'gc', GC_REPORT],
    ['/verify', 'verify', VERIFY_REPORT],
  ])('%s is a job', async (path, kind, result) => {
    const answer = await post(path);
    expect(answer.statusCode).toBe(202);
    const { id } = answer.json<Job>();
    expect(answer.headers.location).toBe(`/api/v1/jobs/${id}`);
    await until(async () => (await get(`/jobs/${id}`)).json<Job>().state === 'done');
    expect((await get(`/jobs/${id}`)).json()).toMatchObject({ id, kind, state: 'done', result });
  });

  test('run one after another', async () => {
    const first = held();
    at.engine.gc = first.work;
    await post('/gc');
    const second = (await post('/verify')).json<Job>();
    expect((await get(`/jobs/${second.id}`)).json()).toMatchObject({ state: 'queued' });
    expect(at.jobs.isWaitedFor('store')).toBe(true);
    expect(at.jobs.isWaitedFor('other')).toBe(false);
    first.finish();
    await until(async () => (await get(`/jobs/${second.id}`)).json<Job>().state === 'done');
  });

  test('that find damage are done and say where', async () => {
    const damaged = [{ segment: 2, file: 'segments/000000000002.seg', offset: 4096, problem: 'CRC' }];
    const of = { id: 'x', disk: 'disk0', sizeBytes: 8192, damagedBytes: 4096, moreRanges: 3 };
    const ranges = [{ offset: 4096, bytes: 4096 }];
    const disks = [{ kind: 'backup', name: 'web@monday', ranges, ...of }] as const;
    at.engine.verify = () => Promise.resolve({ ...VERIFY_REPORT, damaged, disks });
    const { id } = (await post('/verify')).json<Job>();
    await until(async () => (await get(`/jobs/${id}`)).json<Job>().state === 'done');
    expect((await get(`/jobs/${id}`)).json()).toMatchObject({ result: { damaged, disks } });
  });

  test('that fail say why; what was a bug goes to the log only', async () => {
    at.engine.gc = () => Promise.reject(new PandoError('store-full', 'no room'));
    const full = (await post('/gc')).json<Job>();
    await until(() => at.jobs.get(full.id).state === 'failed');
    expect((await get(`/jobs/${full.id}`)).json()).toMatchObject({
      error: { code: 'store-full', detail: 'no room' },
    });
    const secret = new Error('secret');
    at.engine.gc = () => Promise.reject(secret);
    const bug = (await post('/gc')).json<Job>();
    await until(() => at.jobs.get(bug.id).state === 'failed');
    const shown = await get(`/jobs/${bug.id}`);
    expect(shown.json()).toMatchObject({ error: { code: 'internal' } });
    expect(shown.body).not.toContain('secret');
    expect(at.internalErrors).toEqual([secret]);
  });

  test('of verify are told of by the last one of each kind', async () => {
    expect((await get('/verify/last')).json()).toEqual({});
    const startedAt = '2026-11-20T10:00:00.000Z';
    const endedAt = '2026-11-20T10:00:01.500Z';
    const full = { startedAt, endedAt, seconds: 1.5, scheduled: true, report: VERIFY_REPORT };
    at.engine.lastVerifications = () => Promise.resolve({ full });
    expect((await get('/verify/last')).json()).toEqual({ full });
  });

  test('take no fields that they do not know', async () => {
    expect((await post('/gc', { now: true })).json()).toMatchObject({ code: 'request-invalid' });
    expect((await post('/gc', { thorough: 'yes' })).json()).toMatchObject({ code: 'request-invalid' });
    expect((await post('/verify', { thorough: true })).json()).toMatchObject({ code: 'request-invalid' });
  });

  test('of verify say whether it shall be quick, or go on', async () => {
    const asked: object[] = [];
    at.engine.verify = (_work, options) => {
      asked.push(options);
      return Promise.resolve({ ...VERIFY_REPORT, quick: options.quick });
    };
    for (const body of [{}, { quick: false }, { quick: true }, { resume: true }]) {
      const { id } = (await post('/verify', body)).json<Job>();
      await until(() => at.jobs.get(id).state === 'done');
    }
    const begun = { quick: false, resume: false };
    expect(asked).toEqual([begun, begun, { quick: true, resume: false }, { quick: false, resume: true }]);
    expect((await post('/verify', { quick: true, resume: true })).json()).toMatchObject({
      code: 'request-invalid',
    });
  });

  test('of gc say how thorough it shall be', async () => {
    const asked: boolean[] = [];
    at.engine.gc = (_work, { thorough }) => {
      asked.push(thorough);
      return Promise.resolve(GC_REPORT);
    };
    for (const body of [{}, { thorough: false }, { thorough: true }]) {
      const { id } = (await post('/gc', body)).json<Job>();
      await until(() => at.jobs.get(id).state === 'done');
    }
    expect(asked).toEqual([false, false, true]);
  });
});

describe('jobs', () => {
  test('are listed newest first, page by page', async () => {
    const ids: string[] = [];
    for (let i = 0; i < 3; i++) ids.unshift((await post('/gc')).json<Job>().id);
    const first = (await get('/jobs?limit=2')).json<{ items: Job[]; nextCursor: string }>();
    expect(first.items.map(({ id }) => id)).toEqual(ids.slice(0, 2));
    const second = (await get(`/jobs?limit=2&cursor=${first.nextCursor}`)).json<typeof first>();
    expect(second.items.map(({ id }) => id)).toEqual(ids.slice(2));
    expect(second).not.toHaveProperty('nextCursor');
    expect((await get('/jobs?cursor=nonsense')).json()).toMatchObject({
      status: 400,
      code: 'cursor-invalid',
    });
    expect((await get('/jobs/nonsense')).json()).toMatchObject({ status: 404, code: 'job-missing' });
    expect((await get('/jobs/nonsense/events')).json()).toMatchObject({ status: 404, code: 'job-missing' });
  });

  test('are cancelled, whatever the work throws when it is stopped; ended ones stay', async () => {
    const one = held();
    at.engine.gc = one.work;
    const { id } = (await post('/gc')).json<Job>();
    await one.given;
    await at.app.inject({ method: 'DELETE', url: `/api/v1/jobs/${id}` });
    await until(() => at.jobs.get(id).state === 'cancelled');
    const again = await at.app.inject({ method: 'DELETE', url: `/api/v1/jobs/${id}` });
    expect(again.json()).toMatchObject({ state: 'cancelled', error: { code: 'cancelled' } });
    expect((await at.app.inject({ method: 'DELETE', url: '/api/v1/jobs/x' })).json()).toMatchObject({
      code: 'job-missing',
    });
  });

  test('that wait in a lane can be cancelled before they begin', async () => {
    const first = held();
    at.engine.gc = first.work;
    await post('/gc');
    const { id } = (await post('/verify')).json<Job>();
    at.jobs.cancel(id);
    first.finish();
    await until(() => at.jobs.get(id).state === 'cancelled');
    expect(at.jobs.get(id)).not.toHaveProperty('startedAt');
  });

  test('are bounded in number, and ended ones are forgotten', async () => {
    const jobs = new Jobs({ clock: systemClock });
    const hold = held();
    const running = jobs.start({ kind: 'gc' }, hold.work);
    for (let i = 0; i < 1000; i++) await jobs.start({ kind: 'gc' }, () => Promise.resolve(GC_REPORT)).ended;
    expect(jobs.list({ limit: 2000 }).items).toHaveLength(1000);
    expect(jobs.get(running.job.id).state).toBe('running');
    for (let i = 1; i < 64; i++) jobs.start({ kind: 'gc' }, hold.work);
    expect(() => jobs.start({ kind: 'gc' }, hold.work)).toThrow(
      expect.objectContaining({ code: 'too-busy' }),
    );
    await jobs.close();
    expect(jobs.get(running.job.id)).toMatchObject({ state: 'cancelled', error: { code: 'shutting-down' } });
    expect(() => jobs.start({ kind: 'gc' }, hold.work)).toThrow(
      expect.objectContaining({ code: 'shutting-down' }),
    );
  });
});

describe('the events of a job', () => {
  test('tell every change to whoever follows, keep the line warm, and end with the job', async () => {
    await at.app.listen({ host: '127.0.0.1', port: 0 });
    const one = held();
    at.engine.gc = one.work;
    const { id } = (await post('/gc')).json<Job>();
    const { signal, onProgress } = await one.given;
    expect(signal.aborted).toBe(false);

    const { port } = at.app.server.address() as AddressInfo;
    const follow = () => fetch(`http://127.0.0.1:${port}/api/v1/jobs/${id}/events`);
    const answer = await follow();
    expect(answer.headers.get('content-type')).toMatch(/^text\/event-stream/);
    const busy = await follow();
    expect(await busy.json()).toMatchObject({ status: 503, code: 'too-busy' });

    let text = '';
    const decoder = new TextDecoder();
    const reading = (async () => {
      for await (const part of answer.body!) text += decoder.decode(part as Uint8Array, { stream: true });
    })();
    await until(() => text.includes('"running"'));
    onProgress({ phase: 'mark', done: 1, all: 2 });
    await until(() => text.includes('"done":1'));
    await until(() => text.includes(': still here'));
    one.finish();
    await reading;
    const states = text
      .split('\n')
      .filter((line) => line.startsWith('data: '))
      .map((line) => JSON.parse(line.slice(6)) as Job);
    expect(states.at(-1)).toMatchObject({
      state: 'done',
      result: GC_REPORT,
      progress: { phase: 'mark', done: 1, all: 2 },
    });
    expect(text).toMatch(/^: this is the beginning\n\nid: 1\nevent: job\ndata: /);
    // The place is free again, and an ended job ends the stream at once.
    await until(async () => (await follow()).status === 200);
  });

  test('stop when the follower leaves', async () => {
    await at.app.listen({ host: '127.0.0.1', port: 0 });
    const one = held();
    at.engine.gc = one.work;
    const { id } = (await post('/gc')).json<Job>();
    const { port } = at.app.server.address() as AddressInfo;
    for (let i = 0; i < 3; i++) {
      await until(
        () =>
          new Promise((resolve) => {
            http.get({ port, host: '127.0.0.1', path: `/api/v1/jobs/${id}/events` }, (response) => {
              response.destroy();
              resolve(response.statusCode === 200);
            });
          }),
      );
    }
    one.finish();
  });
});
