/** The command line as a whole. */
import { readFileSync } from 'node:fs';
import { Command } from 'commander';
import { addAuditCommands } from './commands/audit.ts';
import { addBackupCommands } from './commands/backup.ts';
import { addConfigCommands } from './commands/config.ts';
import { addEventCommands } from './commands/events.ts';
import { addJobCommands } from './commands/jobs.ts';
import { addReportCommands } from './commands/report.ts';
import { addPolicyCommands } from './commands/policy.ts';
import { addReadyCommand } from './commands/ready.ts';
import { addServeCommand } from './commands/serve.ts';
import { addStoreCommands } from './commands/store.ts';
import { addTreeCommands } from './commands/trees.ts';
import { addTokenCommands } from './commands/token.ts';
import { addSupportBundleCommand } from './commands/support-bundle.ts';
import { addTopCommand } from './commands/top.ts';
import { addVerifyCommand } from './commands/verify.ts';
import { addVmCommands } from './commands/vm.ts';

const manifest = JSON.parse(readFileSync(new URL('../package.json', import.meta.url), 'utf8')) as {
  version: string;
};

export function buildProgram(): Command {
  const program = new Command('pando')
    .description('Clones and backups of virtual machine disks that cost almost nothing')
    .version(manifest.version)
    .addHelpText(
      'after',
      '\nThe commands talk to the server at PANDO_URL, with the token in PANDO_TOKEN or in the file PANDO_TOKEN_FILE, or the one that\nthe server or `pando login` has left for this user. Without PANDO_URL it is the server of an installed package, through\n/run/pando/http.sock where this user may open it, or else http://127.0.0.1:7400.',
    )
    .exitOverride()
    .showHelpAfterError('(see --help)');
  addVmCommands(program);
  addBackupCommands(program);
  addPolicyCommands(program);
  addStoreCommands(program);
  addReportCommands(program);
  addTreeCommands(program);
  addVerifyCommand(program);
  addJobCommands(program);
  addEventCommands(program);
  addReadyCommand(program);
  addTokenCommands(program);
  addTopCommand(program);
  addSupportBundleCommand(program);
  addAuditCommands(program);
  addServeCommand(program);
  addConfigCommands(program);
  program
    .command('demo')
    .description('play the whole story in a temporary folder')
    .option('--clones <n>', 'how many clones', '100')
    .option('--keep', 'leave the folder behind')
    .action(async (options: { clones: string; keep?: boolean }) => {
      const { runDemo } = await import('./demo/demo.ts');
      await runDemo(options, (args) => buildProgram().parseAsync(args, { from: 'user' }));
    });
  for (const command of everyCommand(program)) command.exitOverride().showHelpAfterError('(see --help)');
  return program;
}

function everyCommand(command: Command): Command[] {
  return command.commands.flatMap((child) => [child, ...everyCommand(child)]);
}
