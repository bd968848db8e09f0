/** From the command line to an exit status: 0 done, 1 it could not be done, 2 wrong usage. */
import { buildProgram } from './program.ts';
import { addCompletion } from './completion.ts';
import { CommandFailure, explain, isUsageError } from './failures.ts';

async function main(): Promise<number> {
  const program = buildProgram();
  await addCompletion(program, process.argv.slice(2));
  try {
    await program.parseAsync(process.argv);
    return 0;
  } catch (error) {
    const { commanderStatus, isUsage } = isUsageError(error);
    if (commanderStatus === 0) return 0;
    if (isUsage) return 2; // commander has said why
    if (error instanceof CommandFailure) return error.status;
    process.stderr.write(explain(error, process.argv.includes('--json')));
    return 1;
  }
}

// A reader that went away (`pando vm ls | head`) is no failure.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  process.exit(error.code === 'EPIPE' ? 0 : 1);
});
process.exitCode = await main();
