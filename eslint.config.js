/** Lint rules: a floating promise is a data-loss bug, so the linter knows types; layers are `npm run check:imports`. */
import tseslint from 'typescript-eslint';

const NOT_ERASABLE = 'Node runs these sources as they are (type stripping): ';

export default tseslint.config(
  {
    ignores: ['**/node_modules/', '**/dist/', 'build/', 'pando-data/'],
  },
  {
    files: ['**/*.ts'],
    extends: [...tseslint.configs.strictTypeChecked],
    languageOptions: {
      parserOptions: { projectService: true, tsconfigRootDir: import.meta.dirname },
    },
    linterOptions: { reportUnusedDisableDirectives: 'error' },
    rules: {
      '@typescript-eslint/no-floating-promises': 'error',
      '@typescript-eslint/no-misused-promises': 'error',
      '@typescript-eslint/no-explicit-any': 'error',
      '@typescript-eslint/consistent-type-imports': ['error', { fixStyle: 'separate-type-imports' }],
      '@typescript-eslint/consistent-type-exports': 'error',
      '@typescript-eslint/switch-exhaustiveness-check': [
        'error',
        { considerDefaultExhaustiveForUnions: true },
      ],
      '@typescript-eslint/return-await': ['error', 'error-handling-correctness-only'],
      '@typescript-eslint/no-unused-vars': ['error', { argsIgnorePattern: '^_', varsIgnorePattern: '^_' }],
      'eqeqeq': 'error',
      'no-console': 'off',
      'no-restricted-syntax': [
        'error',
        { selector: 'TSEnumDeclaration', message: `${NOT_ERASABLE}no enum.` },
        { selector: 'TSModuleDeclaration:not([declare=true])', message: `${NOT_ERASABLE}no namespace.` },
        { selector: 'TSParameterProperty', message: `${NOT_ERASABLE}no parameter properties.` },
        { selector: 'TSImportEqualsDeclaration', message: `${NOT_ERASABLE}no import = …` },
        { selector: 'TSExportAssignment', message: `${NOT_ERASABLE}no export = …` },
      ],

      // `noUncheckedIndexedAccess` makes `!` the way to say "in bounds by construction" in loops over buffers.
      '@typescript-eslint/no-non-null-assertion': 'off',
      // An implementation in memory has nothing to wait for, and keeps the interface of the one that has.
      '@typescript-eslint/require-await': 'off',
      '@typescript-eslint/restrict-template-expressions': [
        'error',
        { allowNumber: true, allowBoolean: true },
      ],
      '@typescript-eslint/no-confusing-void-expression': ['error', { ignoreArrowShorthand: true }],
      '@typescript-eslint/no-unnecessary-condition': [
        'error',
        { allowConstantLoopConditions: 'only-allowed-literals' },
      ],
      // Generic signatures that name what a caller gets are worth their one use.
      '@typescript-eslint/no-unnecessary-type-parameters': 'off',
    },
  },
  {
    files: ['packages/*/src/**/*.ts'],
    ignores: ['**/*.test.ts', '**/conformance.ts', '**/conformance/**'],
    rules: {
      'no-console': 'error',
      'no-restricted-globals': [
        'error',
        { name: 'setTimeout', message: 'Time is an argument in the engine: use Clock.' },
        { name: 'setInterval', message: 'Time is an argument in the engine: use Clock.' },
      ],
      'no-restricted-properties': [
        'error',
        {
          object: 'Math',
          property: 'random',
          message: 'Randomness is an argument in the engine: use Random.',
        },
        { object: 'Date', property: 'now', message: 'Time is an argument in the engine: use Clock.' },
      ],
    },
  },
  {
    // The system's clock, behind the seam; and rooms that talk to the world outside.
    files: [
      'packages/common/src/clock.ts',
      'packages/nbd/src/**/*.ts',
      'packages/api/src/**/*.ts',
      'packages/client/src/**/*.ts',
    ],
    rules: { 'no-restricted-globals': 'off', 'no-restricted-properties': 'off' },
  },
  {
    // Written by a script: as redundant as the document.
    files: ['packages/client/src/generated/*.ts'],
    rules: { '@typescript-eslint/no-redundant-type-constituents': 'off' },
  },
  {
    files: ['**/*.test.ts', '**/conformance.ts', '**/conformance/**/*.ts'],
    rules: {
      // expect(mock.method) and friends.
      '@typescript-eslint/unbound-method': 'off',
    },
  },
  {
    files: ['**/*.js'],
    extends: [tseslint.configs.base],
    linterOptions: { reportUnusedDisableDirectives: 'error' },
    rules: { 'eqeqeq': 'error', 'no-undef': 'off', 'no-unused-vars': 'error' },
  },
);
