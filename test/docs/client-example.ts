import { Client, ServerRefusal } from '@pando/client';

const pando = new Client({
  url: process.env['PANDO_URL'] ?? 'http://127.0.0.1:7400',
  token: process.env['PANDO_TOKEN'],
});

await pando.call('createVm', { body: { name: 'web', disks: [{ name: 'disk0', sizeBytes: 2 ** 24 }] } });
const clones = await pando.call('cloneVm', { vm: 'web', body: { name: 'web', count: 3 } });
for (const { id } of clones.items) await pando.call('createBackup', { vm: id, body: { name: 'monday' } });

const backups = await pando.all('listBackups', { vm: 'web-2' });
console.log(backups.map(({ vmName, name }) => `${vmName}@${name}`).join(' '));

const { freedBytes } = await pando.run('collectGarbage', { body: {} });
console.log(`freed ${freedBytes} bytes`);

await pando.call('getVm', { vm: 'web-4' }).catch((error: unknown) => {
  if (!(error instanceof ServerRefusal)) throw error;
  console.log(error.problem.code);
});
