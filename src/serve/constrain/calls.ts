// The grammar of an answer that must be a tool call, in the form that the model's template asks for.
import { ApiError } from '../errors.js';
import type { Tool } from '../schema.js';
import { type CallForm, CLOSE_CALL, OPEN_CALL } from '../tool-calls.js';
import { choice, type Expression, type Grammar, type Rules, rule, sequence, text } from './expression.js';
import { checkCost, objectGrammar, schemaGrammar } from './schema.js';

/**
 * One call of one of the tools. Arguments are held to the tool's parameters; where those use a keyword that is not
 * supported, to any object, unless the tool is strict.
 * @throws ApiError 400 naming the keyword, for a strict tool; or where all together would take long to compile
 */
export function callGrammar(form: CallForm, tools: readonly Tool[]): Grammar {
  const rules: Rules = new Map();
  const calls = tools.map(({ function: tool }, i): Expression => {
    const values = argumentsGrammar(tool, `tools.${i}.function.parameters`);
    // Grammars of several tools have rules of the same names; those of JSON itself are the same in all.
    const own = renamed(values, `tool_${i}_`);
    for (const [name, body] of own.rules) rules.set(name, body);
    const field = form === 'tags' ? 'arguments' : 'parameters';
    const call = sequence(text(`{"name": ${JSON.stringify(tool.name)}, "${field}": `), own.root, text('}'));
    return form === 'tags' ? sequence(text(`${OPEN_CALL}\n`), call, text(`\n${CLOSE_CALL}`)) : call;
  });
  const grammar = { root: choice(...calls), rules };
  checkCost(grammar, 'tools');
  return grammar;
}

function argumentsGrammar({ parameters, strict }: Tool['function'], param: string): Grammar {
  if (!parameters) return objectGrammar();
  try {
    return schemaGrammar(parameters, param);
  } catch (error) {
    if (strict || !(error instanceof ApiError)) throw error;
    return objectGrammar();
  }
}

/** Rules of JSON itself. */
const shared: ReadonlySet<string> = new Set(objectGrammar().rules.keys());

function renamed({ root, rules }: Grammar, prefix: string): Grammar {
  const nameOf = (name: string) => (shared.has(name) ? name : prefix + name);
  const rename = (e: Expression): Expression => {
    switch (e.kind) {
      case 'rule':
        return rule(nameOf(e.name));
      case 'sequence':
        return { ...e, parts: e.parts.map(rename) };
      case 'choice':
        return { ...e, choices: e.choices.map(rename) };
      case 'star':
        return { ...e, of: rename(e.of) };
      default:
        return e;
    }
  };
  return {
    root: rename(root),
    rules: new Map([...rules].map(([name, body]) => [nameOf(name), rename(body)])),
  };
}
