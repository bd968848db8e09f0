/** `pando jobs …`: long work on the server. */
import type { Job } from '@pando/client';
import type { Command } from 'commander';
import { connect } from '../connect.ts';
import { fields, formatTime, print, table } from '../output.ts';
import type { JsonOption } from './arguments.ts';

export function addJobCommands(program: Command): void {
  const jobs = program.command('jobs').description('long work on the server');

  jobs
    .command('ls')
    .description('list jobs, newest first')
    .option('--json', 'print JSON')
    .action(async ({ json }: JsonOption) => {
      const items = await connect().all('listJobs');
      print(json, { items }, () => (items.length === 0 ? 'No jobs.' : jobTable(items)));
    });

  jobs
    .command('show')
    .description('show a job')
    .argument('<id>')
    .option('--json', 'print JSON')
    .action(async (id: string, { json }: JsonOption) => {
      show(await connect().call('getJob', { id }), json);
    });

  jobs
    .command('cancel')
    .description('ask a job to end')
    .argument('<id>')
    .option('--json', 'print JSON')
    .action(async (id: string, { json }: JsonOption) => {
      show(await connect().call('cancelJob', { id }), json);
    });
}

function show(job: Job, json: boolean | undefined): void {
  print(json, job, () =>
    fields([
      ['id', job.id],
      ['kind', job.kind],
      ['subject', job.subject ?? ''],
      ['state', job.state],
      ['progress', formatProgress(job)],
      ['created', formatTime(job.createdAt)],
      ['ended', job.endedAt === undefined ? '' : formatTime(job.endedAt)],
      ...(job.error === undefined ? [] : [['error', `${job.error.detail} (${job.error.code})`] as const]),
    ]),
  );
}

function formatProgress({ progress }: Job): string {
  if (progress === undefined) return '';
  const { phase, done, all } = progress;
  const share = all === undefined || all === 0 ? String(done) : `${Math.floor((done / all) * 100)} %`;
  return phase === undefined ? share : `${phase} ${share}`;
}

function jobTable(items: readonly Job[]): string {
  return table(items, [
    { title: 'ID', text: ({ id }) => id },
    { title: 'KIND', text: ({ kind }) => kind },
    { title: 'SUBJECT', text: ({ subject }) => subject ?? '' },
    { title: 'STATE', text: ({ state }) => state },
    { title: 'PROGRESS', text: formatProgress },
    { title: 'CREATED', text: ({ createdAt }) => formatTime(createdAt) },
  ]);
}
