// What to do about a value that a schema refuses. zod's own words name the fault ("expected number to be >0") instead.
import type { z } from 'zod';

const KINDS: Readonly<Record<string, string>> = {
  int: 'a whole number',
  number: 'a number',
  string: 'text',
  boolean: 'true or false',
  array: 'a list',
};

/** For `schema.safeParse(value, { error: remedyOf })`; a message written into the schema goes before it. */
export const remedyOf: z.core.$ZodErrorMap = (issue) => {
  switch (issue.code) {
    case 'too_small':
      if (issue.origin === 'string') return 'give some text';
      return issue.inclusive ? `give at least ${issue.minimum}` : `give a number above ${issue.minimum}`;
    case 'too_big':
      return issue.inclusive ? `give at most ${issue.maximum}` : `give a number below ${issue.maximum}`;
    case 'invalid_type':
      return KINDS[issue.expected] && `give ${KINDS[issue.expected]}`;
    case 'invalid_value':
      return `give ${issue.values.map(String).join(', ')}`.replace(/, ([^,]*)$/, ' or $1');
    default:
      return undefined;
  }
};
